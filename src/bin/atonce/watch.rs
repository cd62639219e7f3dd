//! `atonce watch`: who comes and goes, and what they listen to, as it happens, over restarts of the daemon too.

use atonce::Client;
use atonce::client::Event;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::human;
use crate::listen::GONE;
use crate::output::{Output, escape};
use crate::peers::path_word;

pub(crate) async fn run(client: &mut Client, output: &Output) -> Result<Exit, Failure> {
    client.watch().await?;
    loop {
        let event = client.next_event().await?;
        if event == Event::Disconnected {
            output.note(GONE);
        } else if event == Event::Reconnected {
            output.note("the daemon is back: all that is there is told again");
        }
        if output.is_json() {
            output.object(&event)?;
        } else if let Some(line) = line(&event) {
            output.line(&format!("{} {line}", human::now()))?;
        }
    }
}

/// `+` for what came, `-` for what went, `=` for what changed.
fn line(event: &Event) -> Option<String> {
    let (sign, peer, what, detail) = match event {
        Event::Enter { peer, path, .. } => ('+', peer, "enter", path_word(*path)),
        Event::Exit { peer, path } => ('-', peer, "exit", path_word(*path)),
        Event::Path { peer, path } => ('=', peer, "path", path_word(*path)),
        Event::Listen { peer, topic, .. } => ('+', peer, "listen", topic.as_str()),
        Event::Unlisten { peer, topic } => ('-', peer, "unlisten", topic.as_str()),
        Event::Message(_) | Event::Lost { .. } | Event::Disconnected | Event::Reconnected => return None,
    };
    Some(format!("{sign} {:<12}  {what:<8}  {}", escape(&peer.name), escape(detail)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atonce::client::{PathKind, PeerRef};
    use atonce::id::NodeId;

    #[test]
    fn what_came_went_and_changed_is_told_by_its_sign() {
        let peer = || PeerRef { name: "pi-attic".into(), id: NodeId([1; 32]) };
        let enter = Event::Enter { peer: peer(), path: PathKind::Lan, snapshot: true };
        assert_eq!(line(&enter).unwrap(), "+ pi-attic      enter     lan");
        assert_eq!(
            line(&Event::Exit { peer: peer(), path: PathKind::Lan }).unwrap(),
            "- pi-attic      exit      lan"
        );
        assert_eq!(
            line(&Event::Path { peer: peer(), path: PathKind::Relay }).unwrap(),
            "= pi-attic      path      relay"
        );
        let unlisten = Event::Unlisten { peer: peer(), topic: "\u{1b}".into() };
        assert_eq!(line(&unlisten).unwrap(), "- pi-attic      unlisten  \\u{1b}");
    }
}
