//! `atonce`, the command line: itself only an app on the daemon's socket.
//!
//! Each command is a file that asks the daemon through [`atonce::Client`] and writes what it learnt through
//! [`Output`]: text for people or JSON for programs on standard output, everything else on standard error.
#![forbid(unsafe_code)]

mod bench;
mod exec;
mod exit;
mod failure;
mod forget;
mod human;
mod id;
mod input;
mod invite;
mod listen;
mod lookup;
mod network;
mod output;
mod peers;
mod ping;
mod publish;
mod reload;
mod request;
mod send;
mod status;
mod wait;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use atonce::Client;
use atonce::client::default_socket;
use atonce::edge::process::keep_secrets;
use clap::{Args, Parser, Subcommand};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// Every program on every device of yours can talk to every other one, by name, at once.
#[derive(Debug, Parser)]
#[command(name = "atonce", version, max_term_width = 100, after_long_help = exit::table())]
struct Arguments {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Arguments {
    /// The same, if its parts fit together.
    fn checked(self) -> Result<Self, clap::Error> {
        if let Some(Command::Request(options)) = &self.command {
            options.check()?;
        }
        Ok(self)
    }
}

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Globals {
    /// The daemon's socket [default: $ATONCE_SOCKET, /run/atonce/atonced.sock when it exists,
    /// $XDG_RUNTIME_DIR/atonce/atonced.sock, /tmp/atonce-$UID/atonced.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Write JSON, one object a line: what the daemon's socket says, field for field
    #[arg(long, global = true)]
    json: bool,
    /// How long to wait for an answer: 500ms, 5s, 2m [default: 5s; of `ping --until-direct` in all, 60s]
    #[arg(long, global = true, value_name = "DUR", value_parser = human::parse_duration)]
    timeout: Option<Duration>,
    /// No notes on standard error, only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// More notes on standard error
    #[arg(short, long, global = true)]
    verbose: bool,
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

impl Globals {
    fn patience(&self) -> Duration {
        self.timeout.unwrap_or(PATIENCE)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How this node is
    Status,
    /// Who is there
    Peers(peers::Options),
    /// Who comes and goes, as it happens
    Watch,
    /// The messages of topics, as they come
    Listen(listen::Options),
    /// Send a message to one peer, and tell what became of it
    Send(send::Options),
    /// Send a message to every peer that listens to a topic
    Publish(publish::Options),
    /// Ask a peer, or all who listen to a topic, and print what they reply
    Request(request::Options),
    /// How long the way to a peer and back takes
    Ping(ping::Options),
    /// How many messages a second a peer takes, and how long each is on its way
    Bench(bench::Options),
    /// The name and the id of this node
    Id,
    /// Wait until a peer is there, or until an app there listens to a topic
    Wait(wait::Options),
    /// Forget a peer, so that its name is free for another one
    Forget(forget::Options),
    /// The network that this node belongs to
    #[command(subcommand)]
    Network(network::Command),
    /// Print the line that makes another device a member of this network, for `atonce network join` there
    Invite(invite::Options),
    /// Make the daemon read its configuration again
    Reload,
}

fn main() -> ExitCode {
    let Arguments { globals, command } = match Arguments::try_parse().and_then(Arguments::checked) {
        Ok(arguments) => arguments,
        Err(error) => return failure::misused(&error),
    };
    let output = Output::new(globals.json, globals.quiet, globals.verbose);
    let exit = match start(&globals, command, &output) {
        Ok(exit) => exit,
        Err(failure) => failure.report(&output),
    };
    exit.into()
}

fn start(globals: &Globals, command: Option<Command>, output: &Output) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            Ok(()) = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            ended = run(globals, command, output) => ended,
        }
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    ended
}

async fn run(globals: &Globals, command: Option<Command>, output: &Output) -> Result<Exit, Failure> {
    if matches!(command, Some(Command::Network(_) | Command::Invite(_))) {
        keep_secrets();
    }
    if let Some(Command::Network(network::Command::Create)) = command {
        return network::create(output);
    }
    let secret = match &command {
        Some(Command::Network(network::Command::Join(options))) => {
            Some(network::read_secret(options, output).await?)
        }
        _ => None,
    };
    let mut client = connect(globals, output).await?;
    let client = &mut client;
    match command {
        None => status::overview(client, output).await,
        Some(Command::Status) => status::run(client, output).await,
        Some(Command::Peers(options)) => peers::run(client, &options, output).await,
        Some(Command::Watch) => watch::run(client, output).await,
        Some(Command::Listen(options)) => listen::run(client, &options, globals.patience(), output).await,
        Some(Command::Send(options)) => send::run(client, &options, globals.patience(), output).await,
        Some(Command::Publish(options)) => publish::run(client, &options, globals.patience(), output).await,
        Some(Command::Request(options)) => request::run(client, &options, globals.patience(), output).await,
        Some(Command::Bench(options)) => bench::run(client, &options, globals.patience(), output).await,
        Some(Command::Ping(options)) => ping::run(client, &options, globals.timeout, output).await,
        Some(Command::Id) => id::run(client, output),
        Some(Command::Wait(options)) => wait::run(client, &options, globals.patience()).await,
        Some(Command::Forget(options)) => forget::run(client, &options, output).await,
        Some(Command::Invite(options)) => invite::run(client, &options, output).await,
        Some(Command::Reload) => reload::run(client, output).await,
        Some(Command::Network(command)) => network::run(client, &command, secret, output).await,
    }
}

async fn connect(globals: &Globals, output: &Output) -> Result<Client, Failure> {
    let socket = globals.socket.clone().unwrap_or_else(default_socket);
    let client = Client::connect_to(&socket, globals.patience()).await?;
    let hello = client.hello();
    output.detail(&format!("{} is atonced {}, node {}", socket.display(), hello.version, hello.node.name));
    Ok(client)
}
