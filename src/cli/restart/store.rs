//! The rollout's record in the permit store, where one is configured: what stands there counts, whatever hosts say.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::adapters::store::edit::{self, EditError};
use crate::adapters::store::register;
use crate::config::Env;
use crate::config::permits::load_permits;
use crate::core::control::roll::Record;
use crate::core::ids::Wall;
use crate::core::permit::document::Document;
use crate::core::permit::rollout::{self, NotTaken};
use crate::core::permit::rules::{By, NothingThere};

/// What may be said again is said so often: the store's own leader may be among what is restarted.
const TRIES: u32 = 15;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(2);

/// The store.
#[derive(Clone)]
pub(super) struct Store {
    register: Arc<register::Permits>,
    name: String,
}

impl Store {
    /// That of `[permits]` in `config`; `None` = none is configured there.
    ///
    /// # Errors
    /// The configuration, or credentials that cannot be used.
    pub(super) async fn configured(config: Option<&Path>) -> Result<Option<Self>, String> {
        let settings = load_permits(config, &Env::system()).map_err(|e| e.to_string())?;
        let register = register::open(&settings, "watchdog restart").await?;
        Ok(register.map(|register| Self {
            register: Arc::new(register),
            name: settings.store.name(),
        }))
    }

    /// The rollout that is open there.
    ///
    /// # Errors
    /// The store does not answer, or has something else there.
    pub(super) async fn read(&self) -> Result<Option<Record>, String> {
        let doc = edit::read(&*self.register).await.map_err(|e| self.words(&e))?;
        rollout::read(&doc).map_err(|e| e.to_string())
    }

    /// Opens it, or takes it over. Not tried again after a write without an answer: the operator looks first.
    ///
    /// # Errors
    /// What stands against it.
    pub(super) async fn open(&self, record: &Record) -> Result<(), String> {
        self.change(|doc| rollout::open(doc, record, now()))
            .await
            .map_err(|e| self.words(&e))
    }

    /// Says how far it is.
    ///
    /// # Errors
    /// It is another process's by now, was given up, or the store does not answer for half a minute.
    pub(super) async fn update(&self, record: &Record) -> Result<(), String> {
        self.again(|doc| rollout::update(doc, record, now())).await
    }

    /// It is over. Fine if it is not there any more.
    ///
    /// # Errors
    /// As [`Store::update`].
    pub(super) async fn end(&self, record: &Record) -> Result<(), String> {
        let by = By {
            who: super::drive::who(),
            why: record.reason.clone(),
        };
        self.again(|doc| match rollout::end(doc, record, &by, now()) {
            Err(NotTaken::NotOpen(_)) => Ok(doc.clone()),
            other => other,
        })
        .await
    }

    /// An operator gives it up.
    ///
    /// # Errors
    /// It is not there, or the store does not answer.
    pub(super) async fn give_up(&self, id: &str, why: &str) -> Result<Record, GaveUp> {
        let by = By {
            who: super::drive::who(),
            why: why.to_owned(),
        };
        let change = |doc: &Document| rollout::give_up(doc, id, &by, now()).map_err(NothingThere::from);
        match edit::edit(&*self.register, change).await {
            Ok((_, record)) => Ok(record),
            Err(EditError::Nothing(NothingThere::Rollout(NotTaken::NotOpen(_)))) => Err(GaveUp::NotThere),
            Err(e) => Err(GaveUp::Failed(self.words(&e))),
        }
    }

    async fn change(&self, change: impl Fn(&Document) -> Result<Document, NotTaken>) -> Result<(), EditError> {
        let change = |doc: &Document| change(doc).map(|next| (next, ())).map_err(NothingThere::from);
        edit::edit(&*self.register, change).await.map(|_| ())
    }

    /// For changes that do nothing the second time.
    async fn again(&self, change: impl Fn(&Document) -> Result<Document, NotTaken>) -> Result<(), String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.change(&change).await {
                Ok(()) => return Ok(()),
                Err(EditError::Store(_) | EditError::Busy) if tries < TRIES => tokio::time::sleep(PAUSE).await,
                Err(e) => return Err(self.words(&e)),
            }
        }
    }

    fn words(&self, e: &EditError) -> String {
        match e {
            EditError::Nothing(e) => e.to_string(),
            e => format!("{}: {e}", self.name),
        }
    }
}

/// Why a rollout was not given up in the store.
pub(super) enum GaveUp {
    /// None is open there.
    NotThere,
    /// Another one is, or the store does not answer.
    Failed(String),
}

fn now() -> Wall {
    Wall(Duration::from_millis(super::drive::now_ms()))
}
