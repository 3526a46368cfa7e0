//! The `[nats]` table and each `[[lane]]`: one way to connect, checked down to the files it names.

use std::path::Path;

use super::context::{self, ContextError, Partial};
use super::credentials as files;
use super::reader::Reader;
use super::settings::{Auth, Connect};
use super::source::Env;
use super::url;

/// Reads the table at `section`; a lane takes URL, TLS and inbox prefix from `base` where it has none of its own.
pub(super) fn connect(reader: &mut Reader, section: &str, base: Option<&Connect>, env: &Env) -> Option<Connect> {
    let at = |key: &str| format!("{section}.{key}");
    let errors = reader.layers.errors.len();
    let url_is_set = reader.is_set(&at("url"));
    let mut own = partial(reader, section);
    one_kind_only(reader, section, &own);
    if !url_is_set && (base.is_some() || reader.is_set(&at("context"))) {
        // The default must not hide what the context or [nats] says.
        own.url = None;
        reader
            .shown
            .retain(|shown| shown.key != "nats.url" || shown.origin != "default");
    }
    let own = match reader.text(&at("context")) {
        Some(name) => match context::load(&name, env) {
            Ok((context, path)) => {
                if let (None, Some(url)) = (&own.url, &context.url) {
                    let value = toml::Value::String(url::redact(url)).to_string();
                    reader.show(&at("url"), value, format!("context {}", path.display()));
                }
                own.over(context)
            }
            Err(error) => {
                reader.error(&at("context"), error.to_string());
                own
            }
        },
        None => own,
    };
    let inherits_url = own.url.is_none();
    if inherits_url && base.is_none() && !url_is_set && !reader.shown.iter().any(|s| s.key == "nats.url") {
        let value = toml::Value::String(context::DEFAULT_URL.into()).to_string();
        reader.show(&at("url"), value, "default");
    }
    let inherits_tls = own.ca.is_none() && own.cert.is_none() && own.tls_first.is_none();
    let mut connect = match own.connect(env) {
        Ok(connect) => connect,
        Err(ContextError::Url(message)) => {
            reader.error(&at("url"), format!("{message} (like \"nats://127.0.0.1:4222\")"));
            return None;
        }
        Err(error) => {
            reader.error(&at("url"), error.to_string());
            return None;
        }
    };
    if let Some(base) = base {
        if inherits_url {
            connect.urls.clone_from(&base.urls);
        }
        if inherits_tls {
            connect.tls.clone_from(&base.tls);
        }
        connect.inbox_prefix = connect.inbox_prefix.or_else(|| base.inbox_prefix.clone());
    }
    if section != "permits.nats" {
        one_server_only(reader, &at("url"), &connect);
    }
    check_files(reader, section, &connect);
    (reader.layers.errors.len() == errors).then_some(connect)
}

fn partial(reader: &mut Reader, section: &str) -> Partial {
    let at = |key: &str| format!("{section}.{key}");
    Partial {
        url: reader.text(&at("url")),
        creds: reader.text(&at("creds")),
        nkey: reader.text(&at("nkey")),
        user: reader.text(&at("user")),
        password: secret(reader, section, "password"),
        token: secret(reader, section, "token"),
        ca: reader.text(&at("tls.ca")),
        cert: reader.text(&at("tls.cert")),
        key: reader.text(&at("tls.key")),
        // The default must not hide what a context or [nats] says.
        tls_first: match reader.is_set(&at("tls.first")) {
            true => reader.flag(&at("tls.first")),
            false => None,
        },
        inbox_prefix: reader.text(&at("inbox_prefix")),
        ..Partial::default()
    }
}

pub(super) fn secret(reader: &mut Reader, section: &str, kind: &'static str) -> Option<String> {
    let plain_key = format!("{section}.{kind}");
    let file_key = format!("{section}.{kind}_file");
    let plain = reader.text(&plain_key);
    let Some(file) = reader.text(&file_key) else {
        return plain;
    };
    if reader.is_set(&plain_key) {
        reader.error(&file_key, format!("stands beside {kind}; keep one of the two"));
        return plain;
    }
    match files::read_secret(kind, Path::new(&file)) {
        Ok(secret) => Some(secret),
        Err(error) => {
            reader.error(&file_key, error.to_string());
            None
        }
    }
}

fn one_kind_only(reader: &mut Reader, section: &str, own: &Partial) {
    let at = |key: &str| format!("{section}.{key}");
    let kinds = own.kinds();
    if kinds.len() > 1 {
        let message = format!(
            "{} are different ways to say who we are; keep one of them",
            kinds.join(", ")
        );
        reader.error(&at(kinds[1]), message);
    }
    let password = ["password", "password_file"]
        .into_iter()
        .find(|key| reader.is_set(&at(key)));
    match (&own.user, password, reader.is_set(&at("context"))) {
        (Some(_), None, false) => {
            let message = "has no password; add password_file = \"/etc/watchdog/password\" (or use token)";
            reader.error(&at("user"), message);
        }
        (None, Some(key), false) => reader.error(&at(key), "has no user; add user = \"watchdog\""),
        _ => {}
    }
}

fn one_server_only(reader: &mut Reader, key: &str, connect: &Connect) {
    if connect.urls.len() != 1 {
        let message = format!(
            "{} servers are named; an agent looks after exactly one, the one beside it (like \"nats://127.0.0.1:4222\")",
            connect.urls.len()
        );
        reader.error(key, message);
    }
}

fn check_files(reader: &mut Reader, section: &str, connect: &Connect) {
    let at = |key: &str| format!("{section}.{key}");
    let auth = match &connect.auth {
        Auth::Creds(path) => files::read_creds(path).err().map(|e| ("creds", e)),
        Auth::Nkey(path) => files::read_nkey(path).err().map(|e| ("nkey", e)),
        Auth::Jwt { seed, .. } => files::seed(seed).err().map(|e| ("context", e)),
        Auth::None | Auth::User(..) | Auth::Token(_) => None,
    };
    if let Some((key, error)) = auth {
        reader.error(&at(key), error.to_string());
    }
    let tls = &connect.tls;
    for (key, kind, path, title) in [
        ("tls.ca", "CA", &tls.ca, "CERTIFICATE"),
        ("tls.cert", "certificate", &tls.cert, "CERTIFICATE"),
        ("tls.key", "key", &tls.key, "PRIVATE KEY"),
    ] {
        let error = path
            .as_deref()
            .and_then(|path| files::check_pem(kind, path, title).err());
        if let Some(error) = error {
            reader.error(&at(key), error.to_string());
        }
    }
    match (&tls.cert, &tls.key) {
        (Some(_), None) => reader.error(&at("tls.cert"), "has no key; add key = \"…\" to the tls table"),
        (None, Some(_)) => reader.error(&at("tls.key"), "has no cert; add cert = \"…\" to the tls table"),
        _ => {}
    }
}
