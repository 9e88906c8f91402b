//! Connection settings as a URL.

use std::fmt::Write;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Where Postgres listens unless told otherwise.
pub(super) const PORT: u16 = 5432;

/// A URL that leads where `config` does, for libpq and for whatever else reads `DATABASE_URL`.
pub(super) fn url(config: &Config) -> String {
    let mut url = String::from("postgresql://");
    if let Some(user) = config.get_user() {
        encode(&mut url, user.as_bytes());
        if let Some(password) = config.get_password() {
            url.push(':');
            encode(&mut url, password);
        }
        url.push('@');
    }

    let ports = config.get_ports();
    for (index, host) in config.get_hosts().iter().enumerate() {
        if index > 0 {
            url.push(',');
        }
        match host {
            Host::Tcp(name) if name.contains(':') => {
                // Writing to a string cannot fail.
                let _ = write!(url, "[{name}]");
            }
            Host::Tcp(name) => encode(&mut url, name.as_bytes()),
            #[cfg(unix)]
            Host::Unix(path) => {
                encode(&mut url, std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
            }
        }
        // A single port counts for every host.
        let port = ports.get(index).or(ports.first()).unwrap_or(&PORT);
        let _ = write!(url, ":{port}");
    }

    url.push('/');
    encode(&mut url, config.get_dbname().unwrap_or_default().as_bytes());

    let mut separator = '?';
    for (name, value) in parameters(config) {
        url.push(separator);
        url.push_str(name);
        url.push('=');
        encode(&mut url, value.as_bytes());
        separator = '&';
    }
    url
}

/// What differs from the defaults and has no place before the question mark.
fn parameters(config: &Config) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    let addresses: Vec<_> = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    if !addresses.is_empty() {
        parameters.push(("hostaddr", addresses.join(",")));
        // Without host names the ports have no place before the question mark.
        if config.get_hosts().is_empty() && !config.get_ports().is_empty() {
            let ports: Vec<_> = config.get_ports().iter().map(ToString::to_string).collect();
            parameters.push(("port", ports.join(",")));
        }
    }
    match config.get_ssl_mode() {
        SslMode::Disable => parameters.push(("sslmode", "disable".to_owned())),
        SslMode::Require => parameters.push(("sslmode", "require".to_owned())),
        _ => {}
    }
    match config.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite => {
            parameters.push(("target_session_attrs", "read-write".to_owned()));
        }
        TargetSessionAttrs::ReadOnly => parameters.push(("target_session_attrs", "read-only".to_owned())),
        _ => {}
    }
    if let Some(options) = config.get_options() {
        parameters.push(("options", options.to_owned()));
    }
    if let Some(name) = config.get_application_name() {
        parameters.push(("application_name", name.to_owned()));
    }
    if let Some(timeout) = config.get_connect_timeout() {
        parameters.push(("connect_timeout", timeout.as_secs().to_string()));
    }
    parameters
}

fn encode(url: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => url.push(byte.into()),
            _ => {
                let _ = write!(url, "%{byte:02X}");
            }
        }
    }
}
