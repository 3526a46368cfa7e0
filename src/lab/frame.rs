//! Cuts the byte stream between two nats-servers into frames, so that whole frames can be swallowed.
//!
//! What nats-server sends over routes and gateways (server/parser.go, 2.9 to 2.15): lines, and four operations whose line ends
//! in the size of a payload that follows with its own CRLF. The size is the last word of the line in all of them, whatever
//! account, origin cluster, reply or header size stands before it.

/// What a frame is, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RMSG, LMSG, HMSG, MSG: a line and a payload.
    Message,
    /// RS+, RS-, LS+, LS-, A+, A-.
    Interest,
    /// INFO.
    Info,
    /// PING, PONG, CONNECT, +OK, -ERR.
    Other,
}

/// A stream that is not the protocol of nats-servers.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("line of more than {MAX_LINE} bytes")]
    LongLine,
    #[error("message line without a size: {0}")]
    NoSize(String),
}

// INFO carries every known URL of a cluster; nothing else comes near.
const MAX_LINE: usize = 4 << 20;

/// Remembers what is unfinished between two reads: part of a line, or how much of a payload is still to come.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
    body: usize,
    pass_body: bool,
}

impl Splitter {
    /// Takes what was read, asks `judge` about each frame by its line (with its CRLF), appends what passes to `out`.
    pub(crate) fn push(
        &mut self,
        mut data: &[u8],
        out: &mut Vec<u8>,
        mut judge: impl FnMut(Kind, &[u8]) -> bool,
    ) -> Result<(), FrameError> {
        while !data.is_empty() {
            if self.body > 0 {
                let (part, rest) = data.split_at(self.body.min(data.len()));
                if self.pass_body {
                    out.extend_from_slice(part);
                }
                self.body -= part.len();
                data = rest;
                continue;
            }
            let Some(end) = data.iter().position(|&b| b == b'\n') else {
                self.line.extend_from_slice(data);
                return if self.line.len() > MAX_LINE {
                    Err(FrameError::LongLine)
                } else {
                    Ok(())
                };
            };
            let (part, rest) = data.split_at(end + 1);
            let line = if self.line.is_empty() {
                part
            } else {
                self.line.extend_from_slice(part);
                &self.line
            };
            let (kind, body) = classify(line)?;
            let pass = judge(kind, line);
            if pass {
                out.extend_from_slice(line);
            }
            (self.body, self.pass_body) = (body, pass);
            self.line.clear();
            data = rest;
        }
        Ok(())
    }
}

fn classify(line: &[u8]) -> Result<(Kind, usize), FrameError> {
    let line = line.trim_ascii();
    let op = line.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
    let is = |name: &str| op.eq_ignore_ascii_case(name.as_bytes());
    if ["RMSG", "HMSG", "LMSG", "MSG"].into_iter().any(is) {
        let last = line.rsplit(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
        let size = std::str::from_utf8(last).ok().and_then(|s| s.parse::<usize>().ok());
        let size = size.ok_or_else(|| FrameError::NoSize(String::from_utf8_lossy(line).into_owned()))?;
        return Ok((Kind::Message, size + 2));
    }
    if ["RS+", "RS-", "LS+", "LS-", "A+", "A-"].into_iter().any(is) {
        return Ok((Kind::Interest, 0));
    }
    Ok((if is("INFO") { Kind::Info } else { Kind::Other }, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] = b"INFO {\"server_id\":\"A\"}\r\nCONNECT {}\r\nPING\r\nRS+ $G foo.bar\r\nRMSG $G foo 5\r\nRS+\r\n\r\n\
        HMSG $G foo | rep q1 q2 12 17\r\nNATS/1.0\r\n\r\nhello\r\nLS- orig $G x\r\nLMSG orig $G foo 0\r\n\r\nA- acc\r\n+OK\r\nPONG\r\n";

    fn filter(chunks: &[usize], drop: Option<Kind>) -> (Vec<u8>, Vec<Kind>) {
        let (mut splitter, mut out, mut kinds) = (Splitter::default(), Vec::new(), Vec::new());
        let mut rest = STREAM;
        for size in chunks.iter().copied().chain([STREAM.len()]) {
            let (part, tail) = rest.split_at(size.min(rest.len()));
            splitter
                .push(part, &mut out, |kind, _| {
                    kinds.push(kind);
                    Some(kind) != drop
                })
                .unwrap();
            rest = tail;
        }
        (out, kinds)
    }

    #[test]
    fn a_dropped_message_takes_its_payload_along_and_nothing_else() {
        let (out, _) = filter(&[], Some(Kind::Message));
        let expected = b"INFO {\"server_id\":\"A\"}\r\nCONNECT {}\r\nPING\r\nRS+ $G foo.bar\r\nLS- orig $G x\r\nA- acc\r\n+OK\r\nPONG\r\n";
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(expected));
    }

    #[test]
    fn a_payload_that_looks_like_interest_is_not_interest() {
        let (_, kinds) = filter(&[], None);
        assert_eq!(kinds.iter().filter(|&&k| k == Kind::Interest).count(), 3);
        assert_eq!(kinds.iter().filter(|&&k| k == Kind::Message).count(), 3);
    }

    #[test]
    fn a_message_without_a_size_is_an_error() {
        let pushed = Splitter::default().push(b"RMSG $G foo\r\n", &mut Vec::new(), |_, _| true);
        assert_eq!(pushed, Err(FrameError::NoSize("RMSG $G foo".into())));
    }

    proptest! {
        #[test]
        fn where_reads_end_makes_no_difference(chunks in prop::collection::vec(0usize..9, 0..60)) {
            for drop in [None, Some(Kind::Message), Some(Kind::Interest)] {
                prop_assert_eq!(filter(&chunks, drop), filter(&[], drop));
            }
            prop_assert_eq!(filter(&chunks, None).0, STREAM);
        }
    }
}
