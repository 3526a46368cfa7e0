//! Credential files: a creds file (JWT and seed) and a seed file, read and checked.
//!
//! The connection reads them again at every connect, so that a renewed file takes effect without a restart.

use std::path::{Path, PathBuf};

use nkeys::{KeyPair, KeyPairType};

/// A credential that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read {kind} file {path}: {source}", path = path.display())]
    Read {
        /// `creds`, `nkey`, …
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was read and is not what it should be.
    #[error("{kind} file {path} {reason}", path = path.display())]
    Content {
        /// `creds`, `nkey`, …
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A seed that did not come from a file.
    #[error("user_seed of the context {0}")]
    Seed(String),
}

/// A user's JWT and the key that signs for it.
pub struct UserJwt {
    /// The JWT as the server wants it.
    pub jwt: String,
    /// The user's key pair.
    pub key: KeyPair,
}

/// Reads a creds file as `nsc` writes it.
///
/// # Errors
/// Says which file cannot be read or what it lacks.
pub fn read_creds(path: &Path) -> Result<UserJwt, CredentialsError> {
    let text = read("creds", path)?;
    let content = |reason: String| CredentialsError::Content {
        kind: "creds",
        path: path.to_owned(),
        reason,
    };
    let jwt = block(&text, "USER JWT").ok_or_else(|| content("has no \"BEGIN NATS USER JWT\" block".into()))?;
    let seed = block(&text, "NKEY SEED").ok_or_else(|| content("has no \"BEGIN USER NKEY SEED\" block".into()))?;
    let key = user_key(seed).map_err(content)?;
    Ok(UserJwt {
        jwt: jwt.to_owned(),
        key,
    })
}

/// Reads an NKEY seed file: the seed alone, or between `BEGIN`/`END` lines.
///
/// # Errors
/// Says which file cannot be read or what it lacks.
pub fn read_nkey(path: &Path) -> Result<KeyPair, CredentialsError> {
    let text = read("nkey", path)?;
    let content = |reason: String| CredentialsError::Content {
        kind: "nkey",
        path: path.to_owned(),
        reason,
    };
    let seed = text
        .lines()
        .map(str::trim)
        .find(|line| line.starts_with('S') && !line.contains(' '))
        .ok_or_else(|| content("has no seed (a line that starts with \"SU\")".into()))?;
    user_key(seed).map_err(content)
}

/// The key pair of a user's seed in a context.
///
/// # Errors
/// Says what is wrong with it, without showing it.
pub fn seed(seed: &str) -> Result<KeyPair, CredentialsError> {
    user_key(seed.trim()).map_err(CredentialsError::Seed)
}

/// Reads a secret from a file, without the line's end.
///
/// # Errors
/// The file cannot be read or is empty.
pub fn read_secret(kind: &'static str, path: &Path) -> Result<String, CredentialsError> {
    let text = read(kind, path)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(CredentialsError::Content {
            kind,
            path: path.to_owned(),
            reason: "is empty".into(),
        });
    }
    Ok(secret.to_owned())
}

/// Checks that a file holds a PEM block whose title contains `title`.
///
/// # Errors
/// The file cannot be read or has no such block.
pub fn check_pem(kind: &'static str, path: &Path, title: &str) -> Result<(), CredentialsError> {
    let text = read(kind, path)?;
    let found = text
        .lines()
        .any(|line| line.starts_with("-----BEGIN ") && line.contains(title));
    if found {
        return Ok(());
    }
    Err(CredentialsError::Content {
        kind,
        path: path.to_owned(),
        reason: format!("has no PEM block \"BEGIN {title}\""),
    })
}

/// Checks the public key of an operator of this fleet.
///
/// # Errors
/// A fragment that says what is wrong.
pub fn check_public_user_key(key: &str) -> Result<(), String> {
    let pair = KeyPair::from_public_key(key).map_err(|e| format!("{key:?} is not an NKEY public key ({e})"))?;
    match pair.key_pair_type() {
        KeyPairType::User => Ok(()),
        other => Err(format!("{key:?} is the key of a different kind ({other:?})")),
    }
}

fn read(kind: &'static str, path: &Path) -> Result<String, CredentialsError> {
    std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
        kind,
        path: path.to_owned(),
        source,
    })
}

fn block<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.contains("BEGIN") && line.contains(title))?;
    lines.next().filter(|line| !line.is_empty())
}

fn user_key(seed: &str) -> Result<KeyPair, String> {
    let key = KeyPair::from_seed(seed).map_err(|e| format!("has an invalid seed ({e})"))?;
    match key.key_pair_type() {
        KeyPairType::User => Ok(key),
        other => Err(format!("has the seed of another kind of key ({other:?}), not a user's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn creds(seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.e30.x\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn a_creds_file_gives_jwt_and_key() {
        let pair = KeyPair::new_user();
        let file = file(&creds(&pair.seed().unwrap()));
        let read = read_creds(file.path()).unwrap();
        assert_eq!(read.jwt, "eyJ0.e30.x");
        assert_eq!(read.key.public_key(), pair.public_key());
    }

    #[test]
    fn an_accounts_seed_is_not_a_users() {
        let file = file(&creds(&KeyPair::new_account().seed().unwrap()));
        let error = read_creds(file.path()).err().unwrap().to_string();
        assert!(error.contains("not a user's"), "{error}");
    }

    #[test]
    fn errors_never_show_a_seed() {
        let seed = KeyPair::new_user().seed().unwrap();
        let other = if seed.as_bytes()[20] == b'A' { "B" } else { "A" };
        let broken = format!("{}{other}{}", &seed[..20], &seed[21..]);
        let file = file(&broken);
        let error = read_nkey(file.path()).err().unwrap().to_string();
        assert!(!error.contains(&broken), "{error}");
    }

    #[test]
    fn a_seed_may_stand_alone_or_decorated() {
        let pair = KeyPair::new_user();
        let seed = pair.seed().unwrap();
        for text in [
            seed.clone(),
            format!("-----BEGIN USER NKEY SEED-----\n{seed}\n------END\n"),
        ] {
            let file = file(&text);
            assert_eq!(read_nkey(file.path()).unwrap().public_key(), pair.public_key());
        }
    }

    #[test]
    fn only_users_public_keys_may_command() {
        assert!(check_public_user_key(&KeyPair::new_user().public_key()).is_ok());
        assert!(check_public_user_key(&KeyPair::new_account().public_key()).is_err());
        assert!(check_public_user_key("UABC").is_err());
    }
}
