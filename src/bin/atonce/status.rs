//! `atonce status`: how this node is; and a bare `atonce`: that, and what to try next.

use std::io;

use atonce::Client;
use atonce::client::{HealthState, Status};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::human;
use crate::output::{Output, escape};

pub(crate) async fn run(client: &mut Client, output: &Output) -> Result<Exit, Failure> {
    let status = client.status().await?;
    if output.is_json() {
        output.object(&status)?;
    } else {
        show(&status, output)?;
    }
    Ok(Exit::Ok)
}

/// The status, and what to try next.
pub(crate) async fn overview(client: &mut Client, output: &Output) -> Result<Exit, Failure> {
    let exit = run(client, output).await?;
    if !output.is_json() {
        output.advice(NEXT);
    }
    Ok(exit)
}

const NEXT: &str = "
try: atonce peers                  who is there
     atonce listen chat            read the messages of a topic
     atonce send PEER chat hello   and write one, from another host
     atonce help                   all commands
";

fn show(status: &Status<'_>, output: &Output) -> io::Result<()> {
    let fingerprint = status.fingerprint.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
    output.line(&format!(
        "atonce {}   {}   id {}   network {}{}",
        escape(&status.version),
        escape(&status.name),
        status.id.short(),
        escape(&status.network),
        escape(&fingerprint)
    ))?;
    row(output, "daemon", &format!("running {}", human::uptime(status.uptime_s)))?;
    let udp: Vec<String> = status.udp.iter().map(ToString::to_string).collect();
    row(output, "udp", &list(&udp))?;
    let addrs =
        status.interfaces.iter().flat_map(|own| own.addrs.iter().map(|addr| format!("{} {addr}", own.name)));
    row(output, "interfaces", &list(&addrs.collect::<Vec<_>>()))?;
    let peers = status.peers;
    let counts = [(peers.online, "online"), (peers.connecting, "connecting"), (peers.offline, "offline")];
    let counts: Vec<String> = counts.iter().map(|(count, state)| format!("{count} {state}")).collect();
    row(output, "peers", &list(&counts))?;
    for server in &status.rendezvous {
        let seen = server.reflexive.map(|addr| format!(", sees this node at {addr}")).unwrap_or_default();
        let others = human::counted(server.members, "other");
        let text = format!("{} {}, {others}{seen}", server.server, server.state);
        row(output, "rendezvous", &text)?;
    }
    if let Some(key) = status.health.iter().find(|check| check.check == "hardware") {
        row(output, "key", &key.why)?;
    }
    row(output, "apps", &format!("{} connected, this command included", status.apps))?;
    health(status, output)
}

fn health(status: &Status<'_>, output: &Output) -> io::Result<()> {
    let mut trouble = status.health.iter().filter(|check| check.state != HealthState::Ok).peekable();
    if trouble.peek().is_none() && status.looking.is_none() {
        return row(output, "health", "ok");
    }
    for check in trouble {
        let state = match check.state {
            HealthState::Ok => "ok",
            HealthState::Warn => "warn",
            HealthState::Fail => "FAIL",
        };
        row(output, "health", &format!("{state}  {}: {}", check.check, check.why))?;
        if !check.fix.is_empty() {
            row(output, "", &format!("try: {}", check.fix))?;
        }
    }
    // What was not found says nothing of what is there: that is not called ok.
    let Some(looking) = status.looking else { return Ok(()) };
    if looking.for_s < FIRST_CALLS_S {
        return row(output, "health", "looking for other nodes");
    }
    let tries = human::counted(looking.tries, "call");
    let time = human::uptime(looking.for_s);
    row(output, "health", &format!("nobody answers: {tries} to everybody in {time}, and it goes on"))?;
    row(output, "", &format!("try: {LOOK_FOR}"))
}

/// By then a start, or a change of the network, has called everybody several times, and a whole series of tries at an
/// address is over.
const FIRST_CALLS_S: u64 = 13;
/// What is usual where there should be somebody.
const LOOK_FOR: &str = "where there should be somebody, see that the network and secret are the same there (atonce \
    network), that no access point isolates its clients, and that UDP 5353, 28281 and 28282 pass the firewalls; or name \
    a peer with --peer";

fn row(output: &Output, label: &str, text: &str) -> io::Result<()> {
    output.line(&format!("{label:<14} {}", escape(text)))
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}
