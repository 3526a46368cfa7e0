//! The flags that say where and as whom to connect: those of the `nats` CLI, with its variables.

use clap::Args;

use crate::config::Env;
use crate::config::context::{self, ContextError, Partial};
use crate::config::settings::Connect;

// How to connect to NATS. Flags go over `NATS_*` variables, both over the context.
#[allow(missing_docs, reason = "clap would take a doc comment for what the command is about")]
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection (as in the nats CLI)")]
pub struct ConnectFlags {
    /// Server URLs, separated by commas [default: nats://127.0.0.1:4222]
    #[arg(short, long, env = "NATS_URL", value_name = "URL", hide_env_values = true)]
    pub server: Option<String>,
    /// Creds file
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub creds: Option<String>,
    /// NKEY seed file
    #[arg(long, env = "NATS_NKEY", value_name = "FILE")]
    pub nkey: Option<String>,
    /// User name; without a password it is a token
    #[arg(long, env = "NATS_USER", value_name = "USER")]
    pub user: Option<String>,
    /// Password
    #[arg(long, env = "NATS_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// Token
    #[arg(long, env = "NATS_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// TLS certificate authority
    #[arg(long, env = "NATS_CA", value_name = "FILE")]
    pub tlsca: Option<String>,
    /// TLS client certificate
    #[arg(long, env = "NATS_CERT", value_name = "FILE")]
    pub tlscert: Option<String>,
    /// TLS client key
    #[arg(long, env = "NATS_KEY", value_name = "FILE")]
    pub tlskey: Option<String>,
    /// TLS handshake before the server's greeting
    #[arg(long)]
    pub tlsfirst: bool,
    /// Context of the nats CLI [default: the selected one]
    #[arg(long, env = "NATS_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Do not use the selected context
    #[arg(long, conflicts_with = "context")]
    pub no_context: bool,
}

impl std::fmt::Debug for ConnectFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectFlags")
            .field("layer", &self.layer())
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

impl ConnectFlags {
    /// What to connect with: flags and variables over the context that is named or selected.
    ///
    /// # Errors
    /// The context cannot be used, or a URL does not parse.
    pub fn resolve(&self) -> Result<Connect, ContextError> {
        self.resolve_in(&Env::system())
    }

    /// [`Self::resolve`] with the home directory of `env`.
    ///
    /// # Errors
    /// The context cannot be used, or a URL does not parse.
    pub fn resolve_in(&self, env: &Env) -> Result<Connect, ContextError> {
        let named = self.context.clone().filter(|name| !name.is_empty());
        let context = match named {
            Some(name) => Some(name),
            None if self.no_context => None,
            None => context::selected(env),
        };
        let base = match context {
            Some(name) => context::load(&name, env)?.0,
            None => Partial::default(),
        };
        self.layer().over(base).connect(env)
    }

    fn layer(&self) -> Partial {
        let set = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let (user, password) = (set(&self.user), set(&self.password));
        // natscli: "--user: username or token".
        let (user, token) = match (user, &password) {
            (Some(token), None) => (None, Some(token)),
            (user, _) => (user, set(&self.token)),
        };
        Partial {
            url: set(&self.server),
            user,
            password,
            creds: set(&self.creds),
            nkey: set(&self.nkey),
            token,
            ca: set(&self.tlsca),
            cert: set(&self.tlscert),
            key: set(&self.tlskey),
            tls_first: self.tlsfirst.then_some(true),
            ..Partial::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::settings::Auth;

    /// A home with contexts `ops` (selected) and `other`.
    fn home() -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        let contexts = home.path().join(".config/nats/context");
        std::fs::create_dir_all(&contexts).unwrap();
        let write = |name: &str, text: &str| std::fs::write(contexts.join(name), text).unwrap();
        write(
            "ops.json",
            r#"{"url":"nats://ops:4222","creds":"~/ops.creds","nkey":"","ca":"$HOME/ca.pem","tls_first":true}"#,
        );
        write("other.json", r#"{"url":"nats://a,nats://b","user":"u","password":"p"}"#);
        write("jwt.json", r#"{"user_jwt":"j","user_seed":"s"}"#);
        write("vault.json", r#"{"creds":"op://vault/item"}"#);
        std::fs::write(home.path().join(".config/nats/context.txt"), "ops\n").unwrap();
        let mut env = Env::default();
        let path = home.path().to_str().unwrap().to_owned();
        env.variables.insert("HOME".into(), path);
        (home, env)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn the_selected_context_is_used_and_its_home_made_whole() {
        let (home, env) = home();
        let c = ConnectFlags::default().resolve_in(&env).unwrap();
        assert_eq!(c.urls, ["nats://ops:4222"]);
        assert_eq!(c.auth, Auth::Creds(home.path().join("ops.creds")));
        assert_eq!(c.tls.ca, Some(home.path().join("ca.pem")));
        assert!(c.tls.first);
    }

    #[test]
    fn a_named_context_goes_over_the_selected_one() {
        let (_home, env) = home();
        let flags = ConnectFlags {
            context: some("other"),
            ..ConnectFlags::default()
        };
        let c = flags.resolve_in(&env).unwrap();
        assert_eq!(c.urls, ["nats://a", "nats://b"]);
        assert_eq!(c.auth, Auth::User("u".into(), "p".into()));
        let flags = ConnectFlags {
            context: some("jwt"),
            ..ConnectFlags::default()
        };
        let c = flags.resolve_in(&env).unwrap();
        assert_eq!(
            c.auth,
            Auth::Jwt {
                jwt: "j".into(),
                seed: "s".into()
            }
        );
    }

    #[test]
    fn a_flag_goes_over_the_context_field_by_field() {
        let (home, env) = home();
        let flags = ConnectFlags {
            server: some("tls://x:1"),
            ..ConnectFlags::default()
        };
        let c = flags.resolve_in(&env).unwrap();
        assert_eq!(c.urls, ["tls://x:1"]);
        assert_eq!(c.auth, Auth::Creds(home.path().join("ops.creds")));
        let flags = ConnectFlags {
            context: some("other"),
            password: some("new"),
            ..ConnectFlags::default()
        };
        assert_eq!(
            flags.resolve_in(&env).unwrap().auth,
            Auth::User("u".into(), "new".into())
        );
    }

    #[test]
    fn credentials_given_outright_displace_those_of_the_context() {
        let (_home, env) = home();
        let flags = ConnectFlags {
            context: some("other"),
            creds: some("/x.creds"),
            ..ConnectFlags::default()
        };
        assert_eq!(
            flags.resolve_in(&env).unwrap().auth,
            Auth::Creds(PathBuf::from("/x.creds"))
        );
        let flags = ConnectFlags {
            server: some("nats://me:pw%40@h"),
            ..ConnectFlags::default()
        };
        let c = flags.resolve_in(&env).unwrap();
        assert_eq!(c.auth, Auth::User("me".into(), "pw@".into()));
        assert_eq!(c.urls, ["nats://h"]);
    }

    #[test]
    fn of_several_kinds_the_order_is_that_of_natscli() {
        let env = Env::default();
        let mut flags = ConnectFlags {
            user: some("u"),
            password: some("p"),
            creds: some("/c"),
            nkey: some("/n"),
            token: some("t"),
            ..ConnectFlags::default()
        };
        assert_eq!(flags.resolve_in(&env).unwrap().auth, Auth::User("u".into(), "p".into()));
        (flags.user, flags.password) = (None, None);
        assert_eq!(flags.resolve_in(&env).unwrap().auth, Auth::Creds("/c".into()));
        flags.creds = None;
        assert_eq!(flags.resolve_in(&env).unwrap().auth, Auth::Nkey("/n".into()));
        flags.nkey = None;
        assert_eq!(flags.resolve_in(&env).unwrap().auth, Auth::Token("t".into()));
    }

    #[test]
    fn a_user_without_a_password_is_a_token() {
        let flags = ConnectFlags {
            user: some("t0"),
            ..ConnectFlags::default()
        };
        assert_eq!(
            flags.resolve_in(&Env::default()).unwrap().auth,
            Auth::Token("t0".into())
        );
    }

    #[test]
    fn without_anything_it_is_the_local_server_without_credentials() {
        let (_home, env) = home();
        let flags = ConnectFlags {
            no_context: true,
            ..ConnectFlags::default()
        };
        let c = flags.resolve_in(&env).unwrap();
        assert_eq!(c.urls, ["nats://127.0.0.1:4222"]);
        assert_eq!(c.auth, Auth::None);
    }

    #[test]
    fn a_context_that_cannot_be_used_says_why() {
        let (home, env) = home();
        let error = |name: &str| {
            let flags = ConnectFlags {
                context: some(name),
                ..ConnectFlags::default()
            };
            flags.resolve_in(&env).unwrap_err().to_string()
        };
        let unknown = error("absent").replace(home.path().to_str().unwrap(), "HOME");
        assert_eq!(
            unknown,
            "unknown context \"absent\": no file HOME/.config/nats/context/absent.json; `nats context ls` lists those there are"
        );
        assert!(error("../x").contains("not valid"));
        assert!(error("vault").contains("op://"));
    }
}
