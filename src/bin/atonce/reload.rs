//! `atonce reload`: the daemon reads its configuration again.

use atonce::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, escape};

pub(crate) async fn run(client: &mut Client, output: &Output) -> Result<Exit, Failure> {
    let reloaded = client.reload().await?;
    if output.is_json() {
        output.object(&reloaded)?;
        return Ok(Exit::Ok);
    }
    let list =
        |keys: &[_]| if keys.is_empty() { "-".to_owned() } else { escape(&keys.join(", ")).into_owned() };
    output.line(&format!("{:<14} {}", "changed", list(&reloaded.changed)))?;
    output.line(&format!("{:<14} {}", "needs restart", list(&reloaded.restart)))?;
    Ok(Exit::Ok)
}
