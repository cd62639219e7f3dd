//! The daemon: reads its configuration, says when it is ready, and serves until it is asked to end.

use std::io::{self, Write};
use std::process::ExitCode;

use atonce::edge::config::{Options, Settings};
use atonce::edge::run::Daemon;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Something went wrong that is not the command line's fault.
const FAILURE: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // `--help` and `--version` come this way too, for standard output.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "atonced: {error}");
            FAILURE.into()
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    let only_check = options.check;
    let settings = options.settle()?;
    let filter = EnvFilter::try_new(&settings.log)
        .map_err(|error| format!("`{}` is no log filter: {error}\ntry: --log debug", settings.log))?;
    if only_check {
        return check(&settings);
    }
    // Colours for people only; a log that is collected stays plain.
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let daemon = Daemon::start(settings)?;
        let mut output = io::stdout();
        // Nobody may be reading it, and that is no reason to end.
        let _ = writeln!(output, "{}", daemon.ready_line()).and_then(|()| output.flush());
        daemon.run().await;
        Ok(())
    })
}

fn check(settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
    settings.check()?;
    writeln!(io::stdout(), "atonced: the configuration is good")?;
    Ok(())
}
