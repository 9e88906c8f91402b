//! The migrator over TLS, on a server with a certificate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use phasewise::testing::Server;
use phasewise::{Kind, Migration, Migrations, Migrator, RunSql, migrations};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::harness::{one, run};

/// Trusts one certificate.
fn trusting(certificate: &CertificateDer<'static>) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap()
}

#[tokio::test]
async fn every_connection_is_encrypted_and_the_server_is_checked() {
    static SECRET: Migrations = migrations![Migration::new(
        "secret",
        RunSql::new(&["INSERT INTO seen SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.datname = current_database() AND a.backend_type = 'client backend'"])
            .irreversible("a test")
    )];
    // A server of this test's own: it has this name.
    let server = Server::builder().setting("cluster_name", "tls").start().await.unwrap();
    let database = server.database().await.unwrap();
    let client = database.connect().await.unwrap();
    let own = certificate();
    for (file, pem) in [("server.crt", own.cert.pem()), ("server.key", own.signing_key.serialize_pem())] {
        // By the server itself, so that both are its own, wherever and whoever it is.
        let sql = format!(
            "COPY (SELECT regexp_split_to_table('{}', '\n')) TO PROGRAM 'umask 077; cat > {file}'",
            pem.trim()
        );
        run(&client, &sql).await;
    }
    run(&client, "ALTER SYSTEM SET ssl = on").await;
    run(&client, "SELECT pg_reload_conf()").await;
    let begun = Instant::now();
    while !one::<bool>(&database.connect().await.unwrap(), "SELECT current_setting('ssl') = 'on'").await {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server does not take its certificate");
    }
    run(&client, "CREATE TABLE seen (connections int, encrypted int)").await;
    drop(client);

    let mut config = database.config();
    config.ssl_mode(SslMode::Require);
    let m = Migrator::connect(config.clone(), trusting(own.cert.der()), &SECRET);
    assert!(m.run().await.unwrap().is_complete());
    m.start().await.unwrap().leave().await.unwrap();
    let client = database.connect().await.unwrap();
    // The driver's and the one for its heartbeat. One of the test's may still be closing.
    assert!(one::<i32>(&client, "SELECT encrypted FROM seen").await >= 2);

    let error =
        Migrator::connect(config, trusting(certificate().cert.der()), &SECRET).run().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Connection);
}
