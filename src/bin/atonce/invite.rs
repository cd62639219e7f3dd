//! `atonce invite`: the line that makes another device a member, and on request as a picture for its camera.

use std::io::{self, IsTerminal};

use atonce::Client;
use clap::Args;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Show the line as a QR code too, on standard error
    #[arg(long)]
    qr: bool,
}

#[derive(Serialize)]
struct Invitation<'a> {
    line: &'a str,
}

pub(crate) async fn run(client: &mut Client, options: &Options, output: &Output) -> Result<Exit, Failure> {
    let line = client.invite().await?;
    if options.qr {
        output.picture(&picture(&line)?);
    }
    output.note(
        "whoever reads this line becomes a member: atonce network join takes it, by its standard input",
    );
    if output.is_json() {
        output.event("invitation", &Invitation { line: &line })?;
    } else {
        output.line(&line)?;
    }
    Ok(Exit::Ok)
}

/// Black on white, whatever the terminal's colours are: cameras want it so.
fn picture(line: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(line, EcLevel::L).map_err(|error| {
        Failure::new(Exit::Other, format!("the line fits into no QR code: {error}")).try_this("without --qr")
    })?;
    let rows = code.render::<Dense1x2>().build();
    let (begin, end) = if io::stderr().is_terminal() { ("\u{1b}[30;107m", "\u{1b}[0m") } else { ("", "") };
    Ok(rows.lines().map(|row| format!("{begin}{row}{end}\n")).collect())
}
