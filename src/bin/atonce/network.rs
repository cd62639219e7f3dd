//! `atonce network`: make a secret, and show or change the network that this node belongs to.
//!
//! The secret is read from a file, a prompt or standard input, and never from the command line, where every user of the
//! host could see it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};

use atonce::Client;
use atonce::client::{NetworkInfo, PeerInfo};
use atonce::crypto::network::NetworkSecret;
use atonce::pasted;
use clap::{Args, Subcommand};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::input::blocking;
use crate::lookup::LISTED;
use crate::output::{Output, escape};

/// Bytes that a file with a secret or an invitation has at most: it is one line.
const SECRET_FILE_BYTES: u64 = 4096;

/// Characters and digits that are more likely most of a secret than the name of a file.
const BARE_SECRET: usize = 40;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print a new secret; changes nothing, and needs no daemon
    Create,
    /// Become a member of the private network whose secret or invitation stands in FILE, or is given when asked
    Join(Join),
    /// Tell which network this node belongs to
    Show,
    /// Talk no more to members that have only the secret of before; refused while any of them is online
    Settle(Settle),
    /// Go back to the open network
    Leave,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// A file with the line that `atonce network create` or `atonce invite` printed [default: a prompt, or standard input]
    file: Option<PathBuf>,
    /// Go on with those who still have the secret of now, until `atonce network settle`: for changing the secret of all
    #[arg(long)]
    keep_old: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Settle {
    /// Part from those who have only the secret of before
    #[arg(long)]
    force: bool,
}

/// Prints a new secret: exactly one line, and the same one for programs.
pub(crate) fn create(output: &Output) -> Result<Exit, Failure> {
    let secret = NetworkSecret::generate(&mut UnwrapErr(SysRng));
    let line = secret.to_line();
    output.bytes(Zeroizing::new(format!("{}\n", *line)).as_bytes())?;
    Ok(Exit::Ok)
}

pub(crate) async fn run(
    client: &mut Client,
    command: &Command,
    secret: Option<Zeroizing<String>>,
    output: &Output,
) -> Result<Exit, Failure> {
    let info = match command {
        Command::Create | Command::Show => client.network().await?,
        Command::Join(options) if options.keep_old => {
            change_secret(client, &secret.unwrap_or_default(), output).await?
        }
        Command::Join(_) => client.join_network(&secret.unwrap_or_default()).await?,
        Command::Settle(options) => settle(client, options.force, output).await?,
        Command::Leave => client.leave_network().await?,
    };
    if output.is_json() {
        output.object(&info)?;
    } else {
        show(&info, output)?;
    }
    Ok(Exit::Ok)
}

/// Joins, and keeps the secret of before if there is one.
async fn change_secret(
    client: &mut Client,
    secret: &str,
    output: &Output,
) -> Result<NetworkInfo<'static>, Failure> {
    if client.network().await?.kind != "open" {
        return Ok(client.change_secret(secret).await?);
    }
    let info = client.join_network(secret).await?;
    output.note("there is nothing to keep: this node was in the open network");
    Ok(info)
}

/// Gives the secret of before up, unless that parts us from somebody.
async fn settle(client: &mut Client, force: bool, output: &Output) -> Result<NetworkInfo<'static>, Failure> {
    let info = client.network().await?;
    if info.also.is_none() {
        output.note("there is nothing to settle: one secret counts here");
        return Ok(info);
    }
    if !force {
        let mut peers = client.peers().await?;
        peers.retain(|peer| peer.old_secret);
        if !peers.is_empty() {
            return Err(stranding(&peers));
        }
    }
    Ok(client.settle_network().await?)
}

/// Why it is not settled: who would be lost.
fn stranding(peers: &[PeerInfo<'_>]) -> Failure {
    let (count, have) = (peers.len(), if peers.len() == 1 { "peer online has" } else { "peers online have" });
    let what = format!("{count} {have} the old secret only, and would be lost");
    let failure = Failure::new(Exit::Refused, what).try_this(
        "atonce network join --keep-old there; or, if they are to be lost, atonce network settle --force",
    );
    let listed = peers.iter().take(LISTED).map(|peer| format!("{}  {}", peer.name, peer.id));
    let more = (count > LISTED).then(|| format!("and {} more", count - LISTED));
    listed.chain(more).fold(failure, Failure::because)
}

fn show(info: &NetworkInfo<'_>, output: &Output) -> io::Result<()> {
    let row = |label: &str, text: &str| output.line(&format!("{label:<14} {}", escape(text)));
    row("network", &info.kind)?;
    row("fingerprint", info.fingerprint.as_deref().unwrap_or("-"))?;
    if let Some(also) = &info.also {
        row("also valid", also)?;
    }
    row("secret from", info.source.as_deref().unwrap_or("none"))?;
    info.servers.iter().try_for_each(|server| row("rendezvous", server))
}

/// Reads the secret's line before anything is asked of the daemon.
pub(crate) async fn read_secret(options: &Join, output: &Output) -> Result<Zeroizing<String>, Failure> {
    let text = match &options.file {
        Some(path) if is_secret(path) => {
            return Err(Failure::new(Exit::Usage, "no secret and no invitation is taken from the command line")
                .because("other users of this host can see it there, and the shell keeps it")
                .try_this("atonce network join, which asks for the line; if others may have seen it, a new secret: atonce network create"));
        }
        Some(path) => {
            let failed = |error: io::Error| {
                let is_directory = error.kind() == io::ErrorKind::IsADirectory;
                let why = if is_directory { "it is a directory".to_owned() } else { error.to_string() };
                Failure::new(Exit::Other, format!("cannot read {}: {why}", path.display()))
                    .try_this("a file with the line, or none: then it is asked for")
            };
            let file = File::open(path).map_err(failed)?;
            blocking(move || first_line(BufReader::new(file))).await.map_err(failed)?
        }
        None if io::stdin().is_terminal() => {
            let _silence = Silence::begin();
            output.prompt("secret (not shown): ");
            let text = blocking(|| first_line(io::stdin().lock())).await;
            output.prompt("\n");
            text?
        }
        None => blocking(|| first_line(io::stdin().lock())).await?,
    };
    if text.is_empty() {
        return Err(Failure::new(Exit::Other, "there is no secret to read")
            .because("the first line is empty")
            .try_this("atonce network create > FILE; atonce network join FILE"));
    }
    Ok(text)
}

/// Whether a secret stands where a file should be named: then it must not be repeated.
fn is_secret(path: &Path) -> bool {
    let text = path.to_string_lossy().trim().to_ascii_lowercase();
    let is_bare = text.len() >= BARE_SECRET && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_line = text.starts_with("atonce-secret") || text.starts_with("atonce-invite");
    (is_bare || is_line) && !path.exists()
}

/// The first line that is not empty, without what may stand around it.
fn first_line(input: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut input = input.take(SECRET_FILE_BYTES);
    let mut line = Zeroizing::new(Vec::with_capacity(SECRET_FILE_BYTES as usize));
    loop {
        line.clear();
        let is_end = input.read_until(b'\n', &mut line)? == 0;
        let text =
            pasted::decoded(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let text = pasted::cleaned(text);
        if is_end || !text.is_empty() {
            return Ok(Zeroizing::new(text.to_owned()));
        }
    }
}

/// While it lives, the terminal does not show what is typed.
struct Silence(Option<Termios>);

impl Silence {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &silent);
        Self(Some(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_first_line_with_something_on_it() {
        assert_eq!(*first_line(&b"\n  atonce-secret-abc \r\nrest"[..]).unwrap(), "atonce-secret-abc");
        assert_eq!(*first_line(&b""[..]).unwrap(), "");
        assert_eq!(
            *first_line(&b"\xef\xbb\xbf\r\n\"atonce-secret-abc\"\r\n"[..]).unwrap(),
            "atonce-secret-abc"
        );
        let error = first_line(&b"\xff\xfea\0\n\0"[..]).unwrap_err().to_string();
        assert!(error.starts_with("it is UTF-16"), "{error}");
    }

    #[test]
    fn an_endless_file_is_not_read_to_its_end() {
        let endless = BufReader::new(io::repeat(b'a'));
        assert_eq!(first_line(endless).unwrap().len() as u64, SECRET_FILE_BYTES);
    }
}
