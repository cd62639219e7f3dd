//! The daemon: reads its configuration, says when it is ready, and serves until it is asked to end.

use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

use atonce::crypto::invitation::without_secrets;
use atonce::edge::config::Given;
use atonce::edge::log::Log;
use atonce::edge::process;
use atonce::edge::run::Daemon;

/// Something went wrong that is not the command line's fault.
const FAILURE: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let given = match Given::from_process() {
        Ok(given) => given,
        Err(error) => {
            // `--help` and `--version` come this way too, for standard output.
            let text = error.render().to_string();
            let _ = match without_secrets(&text) {
                Cow::Borrowed(_) => error.print(),
                Cow::Owned(text) => write!(io::stderr(), "{text}"),
            };
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "atonced: {}", without_secrets(&error.to_string()));
            FAILURE.into()
        }
    }
}

fn run(given: Given) -> Result<(), Box<dyn std::error::Error>> {
    let settings = given.settle()?;
    if given.only_check() {
        let used = settings.check()?;
        return Ok(write!(io::stdout(), "# atonced: the configuration is good\n{used}")?);
    }
    let log = Log::start(&settings.log);
    process::keep_secrets();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let daemon = Daemon::start(settings, given, log)?;
        let mut output = io::stdout();
        // Nobody may be reading it, and that is no reason to end.
        let _ = writeln!(output, "{}", daemon.ready_line()).and_then(|()| output.flush());
        daemon.run().await;
        Ok(())
    })
}
