//! The document of permits as people see it.

use crate::core::agent::Core;
use crate::core::ids::Now;
use crate::core::permit::document::{Document, Phase};
use crate::core::view::{HolderView, PauseView, PermitsView};

impl Core {
    /// What readers see of permits.
    pub(in crate::core::agent) fn permits_view(&self, now: Now) -> PermitsView {
        let machine = &self.permit.machine;
        let seen = machine.seen();
        let empty = Document::default();
        let doc = seen.and_then(|s| s.doc.as_ref().ok()).unwrap_or(&empty);
        let bad = seen.and_then(|s| s.doc.as_ref().err()).map(ToString::to_string);
        PermitsView {
            store: if self.registered() { "register" } else { "slots" }.to_owned(),
            age_seconds: seen.map(|s| now.mono.since(s.at).as_secs_f64()),
            error: machine.error().map(str::to_owned).or(bad),
            held: machine.held().map(|h| phase_name(h.phase).to_owned()),
            holders: doc
                .holders
                .iter()
                .map(|h| HolderView {
                    host: h.host.clone(),
                    region: h.region.clone(),
                    why: h.why.clone(),
                    state: if h.vanished(now.wall) {
                        "vanished"
                    } else {
                        phase_name(h.phase)
                    }
                    .to_owned(),
                    since: h.since.into(),
                    until: h.until.into(),
                    note: h.note.clone(),
                })
                .collect(),
            pauses: doc
                .pauses
                .iter()
                .filter(|p| p.until.is_none_or(|u| now.wall < u.wall()))
                .map(|p| PauseView {
                    scope: p.scope.to_string(),
                    kind: p.scope.kind().to_owned(),
                    here: p.scope.covers(&self.policy.host, &self.policy.region),
                    who: p.who.clone(),
                    why: p.why.clone(),
                    since: p.since.into(),
                    until: p.until.map(Into::into),
                })
                .collect(),
        }
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Taken => "taken",
        Phase::Acting => "acting",
        Phase::Failed => "failed",
    }
}
