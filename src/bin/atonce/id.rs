//! `atonce id`: the name and the id of this node.

use atonce::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, escape};

pub(crate) fn run(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let node = &client.hello().node;
    if output.is_json() {
        output.object(node)?;
    } else {
        output.line(&format!("{}  {}", escape(&node.name), node.id))?;
    }
    Ok(Exit::Ok)
}
