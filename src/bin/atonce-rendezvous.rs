//! The rendezvous server: reads its configuration, says where nodes find it, and serves until it is asked to end.

use std::io::{self, Write};
use std::process::ExitCode;

use atonce::edge::config::Given;
use atonce::edge::config::rendezvous::Options;
use atonce::edge::log::Log;
use atonce::edge::process;
use atonce::edge::rendezvous::Rendezvous;

/// Something went wrong that is not the command line's fault.
const FAILURE: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let given = match Given::<Options>::from_process() {
        Ok(given) => given,
        Err(error) => {
            // `--help` and `--version` come this way too, for standard output.
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match run(&given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "atonce-rendezvous: {error}");
            FAILURE.into()
        }
    }
}

fn run(given: &Given<Options>) -> Result<(), Box<dyn std::error::Error>> {
    let settings = given.settle()?;
    if given.only_check() {
        let used = settings.check()?;
        return Ok(write!(io::stdout(), "# atonce-rendezvous: the configuration is good\n{used}")?);
    }
    Log::start(&settings.log);
    process::keep_secrets();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let rendezvous = Rendezvous::start(settings).await?;
        if let Some(addr) = rendezvous.metrics_addr() {
            tracing::info!(port = addr.port(), "counters are shown at /metrics");
        }
        let mut lines = rendezvous.ready_lines().join("\n");
        lines.push('\n');
        let mut output = io::stdout();
        // Nobody may be reading it, and that is no reason to end.
        let _ = output.write_all(lines.as_bytes()).and_then(|()| output.flush());
        rendezvous.run().await;
        Ok(())
    })
}
