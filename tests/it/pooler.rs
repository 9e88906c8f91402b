//! A pooler in transaction mode, between the migrator and the server.

use phasewise::{AddColumn, Kind, Migration, Migrations, Migrator, migrations};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::NoTls;

use crate::harness::{database, one, run};

/// One message with a tag, its length included.
async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 5];
    stream.read_exact(&mut bytes).await?;
    let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
    bytes.resize(1 + length, 0);
    stream.read_exact(&mut bytes[5..]).await?;
    Ok(bytes)
}

/// Everything that the server says until it is ready; whether a transaction is open then.
async fn answer(server: &mut TcpStream, client: Option<&mut TcpStream>) -> std::io::Result<bool> {
    let mut said = Vec::new();
    loop {
        let bytes = message(server).await?;
        said.extend_from_slice(&bytes);
        if bytes[0] == b'Z' {
            if let Some(client) = client {
                client.write_all(&said).await?;
            }
            return Ok(bytes[5] != b'I');
        }
    }
}

/// One client, whose transactions go to two backends in turn.
async fn pool(mut client: TcpStream, port: u16) -> std::io::Result<()> {
    let mut length = [0; 4];
    client.read_exact(&mut length).await?;
    let mut startup = length.to_vec();
    startup.resize(u32::from_be_bytes(length) as usize, 0);
    client.read_exact(&mut startup[4..]).await?;
    let mut servers = Vec::new();
    for number in 0..2 {
        let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
        server.write_all(&startup).await?;
        answer(&mut server, (number == 0).then_some(&mut client)).await?;
        servers.push(server);
    }
    let mut turn = 0;
    loop {
        let mut asked = Vec::new();
        // Up to a query, or to the end of an extended one.
        loop {
            let bytes = message(&mut client).await?;
            asked.extend_from_slice(&bytes);
            if matches!(bytes[0], b'Q' | b'S') {
                break;
            }
        }
        servers[turn].write_all(&asked).await?;
        if !answer(&mut servers[turn], Some(&mut client)).await? {
            turn = 1 - turn;
        }
    }
}

/// A pooler before the server at `port`; its own.
async fn pooler(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let own = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pool(client, port));
        }
    });
    own
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_named_before_the_first_step() {
    static ADD: Migrations = migrations![Migration::new("add", AddColumn::new("t", "extra", "text"))];
    let database = database().await;
    let client = database.connect().await.unwrap();
    run(&client, "CREATE TABLE t (id int)").await;
    let direct = database.config();
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(pooler(direct.get_ports()[0]).await)
        .user(direct.get_user().unwrap_or("postgres"))
        .dbname(database.name());
    let m = Migrator::connect(config.clone(), NoTls, &ADD);
    let error = m.run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connection, "{error}");
    assert!(error.to_string().contains("pooler in transaction mode"), "{error}");
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    assert_eq!(one::<i64>(&client, columns).await, 1);
    // What needs no session of its own goes through it.
    m.status().await.unwrap();
    m.pause("add").await.unwrap();
    assert!(one::<bool>(&client, "SELECT paused FROM phasewise.migrations").await);
    assert!(one::<bool>(&client, "SELECT expires_at < clock_timestamp() FROM phasewise.lease").await);
}
