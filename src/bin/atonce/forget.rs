//! `atonce forget`: the daemon forgets a peer, and its name is free for another one.

use atonce::Client;
use atonce::client::PeerRef;
use clap::Args;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Output, escape};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Name or id of the peer, or the unique beginning of one
    peer: String,
}

/// What a program is told.
#[derive(Serialize)]
struct Forgotten<'a> {
    peer: &'a PeerRef<'a>,
    /// To whom messages by its name go now, if to anybody.
    heir: Option<PeerRef<'a>>,
}

pub(crate) async fn run(client: &mut Client, options: &Options, output: &Output) -> Result<Exit, Failure> {
    let peer = lookup::find(client, &options.peer).await?.peer;
    client.forget(&peer.id.to_string()).await?;
    let heir = client
        .peers()
        .await?
        .into_iter()
        .find(|other| other.name == peer.name && !other.conflict && other.id != peer.id);
    let heir = heir.map(|heir| PeerRef { name: heir.name, id: heir.id });
    if output.is_json() {
        output.object(&Forgotten { peer: &peer, heir })?;
        return Ok(Exit::Ok);
    }
    output.line(&format!("forgot {} ({})", escape(&peer.name), peer.id.short()))?;
    if let Some(heir) = heir {
        output.note(&format!("messages to {} go to {} now", heir.name, heir.id.short()));
    }
    Ok(Exit::Ok)
}
