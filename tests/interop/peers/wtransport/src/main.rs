//! A peer on wtransport for the interop matrix; `tests/interop/matrix/rows.py` describes the scripts.
//!
//! ```text
//! peer client <url> <SHA-256 of the certificate in hexadecimal> <certificate file>
//! peer server <certificate and key file> <port>
//! ```
//!
//! The client prints its report as one line of JSON. The server prints `{"port": …}`, then a report for each session
//! that is over, and ends with its standard input.
//!
//! wtransport hands the error codes of streams through as they are on the wire and leaves the mapping of application
//! codes (draft-ietf-webtrans-http3, section 4.4) to its user, so that it is done here.

mod client;
mod server;

use std::collections::HashMap;
use std::error::Error;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use wtransport::error::{ConnectionError, StreamReadError, StreamWriteError};
use wtransport::{Connection, RecvStream, SendStream, VarInt};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const FIRST_APPLICATION_CODE: u64 = 0x52e4_a40f_a8db;
const LAST_APPLICATION_CODE: u64 = 0x52e5_ac98_3162;

/// A path taken apart: the name of the row and its parameters.
struct Script {
    name: String,
    parameters: HashMap<String, String>,
}

impl Script {
    fn of(url: &Url) -> Self {
        Self { name: url.path().trim_matches('/').to_owned(), parameters: url.query_pairs().into_owned().collect() }
    }

    fn text(&self, name: &str) -> Result<&str> {
        Ok(self.parameters.get(name).ok_or("a parameter is missing")?)
    }

    fn number(&self, name: &str) -> Result<u64> {
        Ok(self.text(name)?.parse()?)
    }

    fn codes(&self) -> Result<Vec<u64>> {
        self.text("codes")?.split(',').map(|code| Ok(code.parse()?)).collect()
    }
}

fn to_wire(code: u64) -> Result<VarInt> {
    Ok(VarInt::try_from(FIRST_APPLICATION_CODE + code + code / 0x1e)?)
}

fn from_wire(code: VarInt) -> Value {
    let code = code.into_inner();
    if !(FIRST_APPLICATION_CODE..=LAST_APPLICATION_CODE).contains(&code) {
        return json!(format!("wire code {code:#x}"));
    }
    let shifted = code - FIRST_APPLICATION_CODE;
    json!(shifted - shifted / 0x1f)
}

async fn read_all(stream: &mut RecvStream) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut piece = vec![0; 65536];
    while let Some(count) = stream.read(&mut piece).await? {
        data.extend_from_slice(&piece[..count]);
    }
    Ok(data)
}

async fn read_text(stream: &mut RecvStream) -> Result<String> {
    Ok(String::from_utf8(read_all(stream).await?)?)
}

async fn read_line(stream: &mut RecvStream) -> Result<String> {
    let mut line = Vec::new();
    let mut letter = [0];
    loop {
        stream.read_exact(&mut letter).await?;
        if letter == *b"\n" {
            return Ok(String::from_utf8(line)?);
        }
        line.extend_from_slice(&letter);
    }
}

async fn ask((mut send, mut receive): (SendStream, RecvStream), question: &str) -> Result<String> {
    send.write_all(question.as_bytes()).await?;
    send.finish().await?;
    read_text(&mut receive).await
}

async fn answer((mut send, mut receive): (SendStream, RecvStream)) -> Result<String> {
    let question = read_text(&mut receive).await?;
    send.write_all(question.to_uppercase().as_bytes()).await?;
    send.finish().await?;
    Ok(question)
}

/// Sends a text on a unidirectional stream of its own.
async fn say(connection: &Connection, text: &str) -> Result<()> {
    let mut stream = connection.open_uni().await?.await?;
    stream.write_all(text.as_bytes()).await?;
    Ok(stream.finish().await?)
}

/// Reads until the other side resets the stream.
async fn code_of_reset(stream: &mut RecvStream) -> Value {
    let mut piece = [0; 1024];
    loop {
        match stream.read(&mut piece).await {
            Ok(Some(_)) => {}
            Ok(None) => return json!("ended"),
            Err(StreamReadError::Reset(code)) => return from_wire(code),
            Err(error) => return json!(error.to_string()),
        }
    }
}

/// Waits until the other side stops the stream.
async fn code_of_stop(stream: &mut SendStream) -> Value {
    match stream.stopped().await {
        StreamWriteError::Stopped(code) => from_wire(code),
        error => json!(error.to_string()),
    }
}

/// Waits for the end of the session and tells how the other side announced it.
async fn closing(connection: &Connection) -> Value {
    loop {
        match connection.accept_uni().await {
            Ok(_) => {}
            Err(ConnectionError::ApplicationClosed(close)) => {
                return json!({
                    "code": close.code().into_inner(),
                    "reason": String::from_utf8_lossy(close.reason()),
                });
            }
            Err(error) => return json!({ "error": error.to_string() }),
        }
    }
}

fn bulk_data(size: u64) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

fn received(data: &[u8]) -> Value {
    let digest: String = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "bytes": data.len(), "sha256": digest })
}

fn report(result: Result<Value>) -> Value {
    result.unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["client", url, hash, _] => println!("{}", report(client::run(url, hash).await)),
        ["server", certificate, port] => server::run(certificate, port.parse()?).await?,
        _ => return Err("usage: peer client <url> <hash> <certificate> | peer server <certificate> <port>".into()),
    }
    Ok(())
}
