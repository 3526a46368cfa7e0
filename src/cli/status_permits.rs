//! The part of `watchdog status` on permits and pauses, and on what holds all acts of this host now.

use super::words::{Paint, Tone, line, span, time};
use crate::core::view::{PermitsView, Snapshot};

/// Permits and pauses, as the agent last read them.
pub(super) fn permits(v: &PermitsView, at: f64, paint: Paint) -> String {
    let mut text = paint.heading("Permits and pauses") + "\n";
    if v.store != "register" {
        line(
            &mut text,
            "No store is configured: a restart waits for this host's time slot, and nothing can be paused.",
        );
        return text;
    }
    match (v.age_seconds, &v.error) {
        (None, None) => line(
            &mut text,
            "The store has not been read yet: nothing is done until then.",
        ),
        (Some(age), None) => line(&mut text, &format!("The store was read {} ago.", span(age))),
        (age, Some(error)) => {
            let last = age.map_or("never".to_owned(), |age| format!("{} ago", span(age)));
            let bad = paint.text(Tone::Bad, "The store cannot be used");
            line(&mut text, &format!("{bad} (last read {last}): {error}."));
        }
    }
    if let Some(held) = &v.held {
        let tone = if held == "failed" { Tone::Bad } else { Tone::Warn };
        let state = paint.text(tone, &format!("This host holds a permit ({held})"));
        line(&mut text, &format!("{state}."));
    }
    if v.holders.is_empty() {
        line(&mut text, "Nobody holds a permit.");
    }
    for h in &v.holders {
        let tone = match h.state.as_str() {
            "failed" | "vanished" => Tone::Bad,
            _ => Tone::Plain,
        };
        let state = paint.text(tone, &h.state);
        let note = match h.note.as_str() {
            "" => String::new(),
            note => format!("; {note}"),
        };
        let (host, region, why) = (&h.host, &h.region, &h.why);
        let since = span(at - h.since);
        line(
            &mut text,
            &format!("{host} in {region} has held one for {since}: {state}, for {why}{note}."),
        );
    }
    if v.pauses.is_empty() {
        line(&mut text, "Nothing is paused.");
    }
    for p in &v.pauses {
        let paused = format!("{} is paused", p.scope);
        let (tone, here) = match p.here {
            true => (Tone::Warn, "this host too"),
            false => (Tone::Plain, "not this host"),
        };
        let until = p.until.map_or("until `watchdog resume`".to_owned(), |until| {
            format!("until {}", time(until))
        });
        let (paused, who, why) = (paint.text(tone, &paused), &p.who, &p.why);
        line(&mut text, &format!("{paused} ({here}) by {who}, {until}: {why}."));
    }
    text
}

/// What holds whatever might be wanted, whether anything is or not.
pub(super) fn standing(s: &Snapshot) -> Vec<String> {
    let mut gates = Vec::new();
    if let Some(p) = s.permits.pauses.iter().find(|p| p.here) {
        gates.push(format!(
            "every act by paused: {} is paused by {}: {}",
            p.scope, p.who, p.why
        ));
    }
    if s.permits.store == "register" && s.permits.age_seconds.is_none() {
        gates.push("every act by permit_store: the permits were not read yet".to_owned());
    }
    for b in s.brownout.iter().filter(|b| b.on) {
        gates.push(format!(
            "every act by brownout: a brownout of the {} is on (unless brownout.hold = false)",
            b.scope
        ));
    }
    gates
}
