//! The client's halves of the scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;
use wtransport::error::ConnectingError;
use wtransport::tls::Sha256Digest;
use wtransport::{ClientConfig, Connection, Endpoint, VarInt};

use crate::{
    Result, Script, answer, ask, bulk_data, closing, code_of_reset, code_of_stop, read_all, read_text, received, say,
    to_wire,
};

const STREAMS_AT_ONCE: usize = 100;
const RESEND_AFTER: Duration = Duration::from_millis(100);

/// Plays the script that the URL names and gives the report.
pub(crate) async fn run(url: &str, hash: &str) -> Result<Value> {
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hash.get(2 * index..2 * index + 2).ok_or("the hash is too short")?, 16)?;
    }
    let config =
        ClientConfig::builder().with_bind_default().with_server_certificate_hashes([Sha256Digest::new(digest)]).build();
    let endpoint = Endpoint::client(config)?;
    let connection = match endpoint.connect(url).await {
        Ok(connection) => Arc::new(connection),
        Err(ConnectingError::SessionRejected) => return Ok(json!({ "rejected": true })),
        Err(error) => return Err(error.into()),
    };
    let result = half(&connection, &Script::of(&Url::parse(url)?)).await;
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    result
}

async fn half(connection: &Arc<Connection>, script: &Script) -> Result<Value> {
    Ok(match script.name.as_str() {
        "connect" => json!({ "connected": true }),
        "bidirectional" => {
            let question = answer(connection.accept_bi().await?).await?;
            let answer = ask(connection.open_bi().await?.await?, "client asks").await?;
            json!({ "question": question, "answer": answer })
        }
        "unidirectional" => {
            let question = read_text(&mut connection.accept_uni().await?).await?;
            say(connection, &question.to_uppercase()).await?;
            let thanks = read_text(&mut connection.accept_uni().await?).await?;
            json!({ "question": question, "thanks": thanks })
        }
        "bulk" => {
            let (mut send, mut receive) = connection.open_bi().await?.await?;
            let data = bulk_data(script.number("bytes")?);
            let writing = async {
                send.write_all(&data).await?;
                Result::Ok(send.finish().await?)
            };
            let (written, read) = tokio::join!(writing, read_all(&mut receive));
            written?;
            received(&read?)
        }
        "datagrams" => {
            let large = script.number("large")? as usize;
            let answer = ask_with_datagram(connection, b"client asks").await?;
            let echoed = ask_with_datagram(connection, &vec![b'x'; large]).await?;
            json!({ "answer": String::from_utf8(answer)?, "large": echoed.len() })
        }
        "reset" | "stop" => {
            let mut codes = Vec::new();
            for code in script.codes()? {
                let (mut send, mut receive) = connection.open_bi().await?.await?;
                send.write_all(format!("{code}\n").as_bytes()).await?;
                if script.name == "stop" {
                    codes.push(code_of_stop(&mut send).await);
                    receive.stop(to_wire(code)?);
                } else {
                    codes.push(code_of_reset(&mut receive).await);
                    send.reset(to_wire(code)?)?;
                }
            }
            ask(connection.open_bi().await?.await?, "done\n").await?;
            json!({ "codes": codes })
        }
        "close-by-client" => {
            connection.close(VarInt::try_from(script.number("code")?)?, script.text("reason")?.as_bytes());
            json!({})
        }
        "close-by-server" => closing(connection).await,
        "many" => json!({ "streams": many(connection, script.number("streams")?).await }),
        "drain" => json!({ "answer": ask(connection.open_bi().await?.await?, "still here").await? }),
        name => return Err(format!("no script `{name}`").into()),
    })
}

async fn ask_with_datagram(connection: &Connection, question: &[u8]) -> Result<Vec<u8>> {
    let expected = question.to_ascii_uppercase();
    loop {
        connection.send_datagram(question)?;
        while let Ok(datagram) = timeout(RESEND_AFTER, connection.receive_datagram()).await {
            if datagram?.payload() == expected {
                return Ok(expected);
            }
        }
    }
}

async fn many(connection: &Arc<Connection>, count: u64) -> u64 {
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..STREAMS_AT_ONCE {
        let (connection, next) = (Arc::clone(connection), Arc::clone(&next));
        workers.spawn(async move {
            let mut right = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return right;
                }
                right += u64::from(one_of_many(&connection, &format!("{number:08}")).await.unwrap_or(false));
            }
        });
    }
    workers.join_all().await.into_iter().sum()
}

async fn one_of_many(connection: &Connection, question: &str) -> Result<bool> {
    Ok(ask(connection.open_bi().await?.await?, question).await? == question)
}
