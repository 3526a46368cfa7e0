//! Which path answers what. Pure: method, path, snapshot and its age in, response out.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::health;
use crate::core::view::{
    AgentView, AuditView, BrownoutView, FaultView, LaneView, MatrixCell, PermitsView, ProbeView, Record, RegionView,
    RemediationView, ServerView, Snapshot, SourceView, SysView,
};
use crate::telemetry::metrics;

const PAGE: &str = include_str!("page.html");
/// The page brings all it needs; whatever a foreign name might smuggle in may load and call nothing.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PATHS: [&str; 8] = [
    "/",
    "/metrics",
    "/livez",
    "/readyz",
    "/api/v1/status",
    "/api/v1/matrix",
    "/api/v1/faults",
    "/api/v1/history",
];

/// The answer to one request. For HEAD, hyper leaves the body out.
pub(super) fn answer(method: &Method, path: &str, snapshot: &Snapshot, age: Duration) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = error(
            StatusCode::METHOD_NOT_ALLOWED,
            &format!("{method} is not answered here, all is read only; use GET"),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/" => {
            let mut page = body(StatusCode::OK, "text/html; charset=utf-8", PAGE);
            page.headers_mut()
                .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
            page
        }
        "/metrics" => body(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(snapshot)),
        "/livez" => verdict(health::live(age)),
        "/readyz" => verdict(health::ready(snapshot, age)),
        "/api/v1/status" => api(&Status::of(snapshot)),
        "/api/v1/matrix" => api(&Matrix {
            at: snapshot.at,
            matrix: &snapshot.matrix,
            sources: &snapshot.sources,
        }),
        "/api/v1/faults" => api(&Faults {
            at: snapshot.at,
            faults: &snapshot.faults,
        }),
        "/api/v1/history" => api(&History {
            at: snapshot.at,
            history: &snapshot.history,
        }),
        _ => error(StatusCode::NOT_FOUND, &format!("nothing is at {path:?}")),
    }
}

/// The snapshot with `sources` and `history` empty, so that it still reads as a [`Snapshot`].
#[derive(Serialize)]
struct Status<'a> {
    at: f64,
    agent: &'a AgentView,
    server: &'a ServerView,
    lanes: &'a [LaneView],
    regions: &'a [RegionView],
    probes: &'a [ProbeView],
    sources: [SourceView; 0],
    matrix: &'a [MatrixCell],
    faults: &'a [FaultView],
    remediation: &'a RemediationView,
    permits: &'a PermitsView,
    history: [Record; 0],
    dropped: &'a std::collections::BTreeMap<String, u64>,
    sys: &'a SysView,
    brownout: &'a [BrownoutView],
    audit: &'a AuditView,
}

impl<'a> Status<'a> {
    fn of(s: &'a Snapshot) -> Self {
        Self {
            at: s.at,
            agent: &s.agent,
            server: &s.server,
            lanes: &s.lanes,
            regions: &s.regions,
            probes: &s.probes,
            sources: [],
            matrix: &s.matrix,
            faults: &s.faults,
            remediation: &s.remediation,
            permits: &s.permits,
            history: [],
            dropped: &s.dropped,
            sys: &s.sys,
            brownout: &s.brownout,
            audit: &s.audit,
        }
    }
}

#[derive(Serialize)]
struct Matrix<'a> {
    at: f64,
    matrix: &'a [MatrixCell],
    sources: &'a [SourceView],
}

#[derive(Serialize)]
struct Faults<'a> {
    at: f64,
    faults: &'a [FaultView],
}

#[derive(Serialize)]
struct History<'a> {
    at: f64,
    history: &'a [Record],
}

fn api(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(json) => body(StatusCode::OK, "application/json", json),
        Err(e) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("cannot write the state as JSON: {e}"),
        ),
    }
}

fn verdict(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => body(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
        Err(why) => body(
            StatusCode::SERVICE_UNAVAILABLE,
            "text/plain; charset=utf-8",
            format!("{why}\n"),
        ),
    }
}

fn error(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    body(
        status,
        "application/json",
        json!({"error": text, "paths": PATHS}).to_string(),
    )
}

fn body(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(bytes.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
