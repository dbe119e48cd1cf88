//! The server's halves of the scripts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use url::Url;
use wtransport::endpoint::IncomingSession;
use wtransport::{Connection, Endpoint, Identity, RecvStream, SendStream, ServerConfig, VarInt};

use crate::{
    Result, Script, answer, ask, bulk_data, closing, code_of_reset, code_of_stop, read_all, read_line, read_text,
    received, report, say, to_wire,
};

/// Serves every script until the end of standard input.
pub(crate) async fn run(certificate: &str, port: u16) -> Result<()> {
    let config = ServerConfig::builder()
        .with_bind_address(SocketAddr::from(([127, 0, 0, 1], port)))
        .with_identity(Identity::load_pemfiles(certificate, certificate).await?)
        .build();
    let endpoint = Endpoint::server(config)?;
    println!("{}", json!({ "port": endpoint.local_addr()?.port() }));
    tokio::spawn(async move {
        loop {
            let incoming = endpoint.accept().await;
            tokio::spawn(async move { println!("{}", report(serve(incoming).await)) });
        }
    });
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn serve(incoming: IncomingSession) -> Result<Value> {
    let request = incoming.await?;
    let path = request.path().to_owned();
    let script = Script::of(&Url::parse("https://localhost")?.join(&path)?);
    if script.name == "rejection" {
        // The only statuses it has are 403, 404 and 429.
        request.not_found().await;
        return Ok(json!({}));
    }
    let connection = request.accept().await?;
    let result = match script.name.as_str() {
        "connect" => json!({ "path": path }),
        "bidirectional" => {
            let reply = ask(connection.open_bi().await?.await?, "server asks").await?;
            json!({ "question": answer(connection.accept_bi().await?).await?, "answer": reply })
        }
        "unidirectional" => {
            say(&connection, "server asks").await?;
            let answer = read_text(&mut connection.accept_uni().await?).await?;
            say(&connection, "server thanks").await?;
            json!({ "answer": answer })
        }
        "bulk" => {
            let (mut send, mut receive) = connection.accept_bi().await?;
            let data = bulk_data(script.number("bytes")?);
            let (written, read) = tokio::join!(send.write_all(&data), read_all(&mut receive));
            written?;
            send.finish().await?;
            received(&read?)
        }
        "datagrams" => datagrams(&connection).await,
        "reset" | "stop" => codes(&connection, script.name == "stop").await?,
        "close-by-client" => return Ok(closing(&connection).await),
        "close-by-server" => {
            connection.close(VarInt::try_from(script.number("code")?)?, script.text("reason")?.as_bytes());
            connection.closed().await;
            return Ok(json!({}));
        }
        "many" => return Ok(json!({ "streams": many(&connection).await })),
        "drain" => json!({ "question": answer(connection.accept_bi().await?).await? }),
        name => return Err(format!("no script `{name}`").into()),
    };
    closing(&connection).await;
    Ok(result)
}

async fn datagrams(connection: &Connection) -> Value {
    let mut question = None;
    let mut large = 0;
    while let Ok(datagram) = connection.receive_datagram().await {
        let payload = datagram.payload();
        question.get_or_insert_with(|| String::from_utf8_lossy(&payload).into_owned());
        large = large.max(payload.len());
        if connection.send_datagram(payload.to_ascii_uppercase()).is_err() {
            break;
        }
    }
    json!({ "question": question, "large": large })
}

async fn codes(connection: &Connection, stop: bool) -> Result<Value> {
    let mut codes = Vec::new();
    loop {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let line = read_line(&mut receive).await?;
        if line == "done" {
            send.write_all(b"DONE").await?;
            send.finish().await?;
            return Ok(json!({ "codes": codes }));
        }
        let code = to_wire(line.parse()?)?;
        if stop {
            receive.stop(code);
            codes.push(code_of_stop(&mut send).await);
        } else {
            send.reset(code)?;
            codes.push(code_of_reset(&mut receive).await);
        }
    }
}

async fn many(connection: &Connection) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let mut echoes = JoinSet::new();
    while let Ok(stream) = connection.accept_bi().await {
        echoes.spawn(echo(stream, Arc::clone(&count)));
        while echoes.try_join_next().is_some() {}
    }
    echoes.join_all().await;
    count.load(Ordering::Relaxed)
}

async fn echo((mut send, mut receive): (SendStream, RecvStream), count: Arc<AtomicU64>) -> Result<()> {
    let data = read_all(&mut receive).await?;
    count.fetch_add(1, Ordering::Relaxed);
    send.write_all(&data).await?;
    Ok(send.finish().await?)
}
