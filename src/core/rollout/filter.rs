//! `--where` and `--exclude`: a small language over what is known of a host.
//!
//! ```text
//! version<2.10.26 and not region=fra
//! host=iad-* or (clients>1000, leaders=0)
//! ```
//!
//! What is not known is neither true nor false (Kleene's logic): such a host is not selected, and not spared from an
//! exclusion, so unknown data never widens a restart.

use std::cmp::Ordering;
use std::fmt;

/// What is known of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Name.
    pub host: &'a str,
    /// Region.
    pub region: &'a str,
    /// Cluster; empty = unknown.
    pub cluster: &'a str,
    /// Version of its server; empty = unknown.
    pub version: &'a str,
    /// Clients.
    pub clients: Option<u64>,
    /// Streams that its server leads.
    pub leaders: Option<u64>,
}

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    text: String,
    root: Node,
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {} of {text:?} (like \"version<2.10.26 and region=iad\")", .at + 1)]
pub struct FilterError {
    /// The expression.
    pub text: String,
    /// Characters before the place.
    pub at: usize,
    /// What.
    pub what: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Compare(Field, Op, Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Host,
    Region,
    Cluster,
    Version,
    Clients,
    Leaders,
}

const FIELDS: [(&str, Field); 6] = [
    ("host", Field::Host),
    ("region", Field::Region),
    ("cluster", Field::Cluster),
    ("version", Field::Version),
    ("clients", Field::Clients),
    ("leaders", Field::Leaders),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// `*` stands for anything.
    Text(String),
    Version(Version),
    Number(u64),
}

/// Numbers, and whether it is a pre-release, which comes before the release.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: Vec<u64>,
    pre: Option<String>,
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong and at which character.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut parser = Parser {
            text,
            chars: text.chars().collect(),
            at: 0,
        };
        let root = parser.any()?;
        parser.blank();
        if parser.at < parser.chars.len() {
            return Err(parser.error("expected `and`, `or` or the end"));
        }
        Ok(Self {
            text: text.to_owned(),
            root,
        })
    }

    /// Whether it holds; `None` = not known.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        self.root.holds(facts)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Node {
    fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            Self::Any(nodes) => {
                let mut known = Some(false);
                for node in nodes {
                    match node.holds(facts) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => known = None,
                    }
                }
                known
            }
            Self::All(nodes) => {
                let mut known = Some(true);
                for node in nodes {
                    match node.holds(facts) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => known = None,
                    }
                }
                known
            }
            Self::Not(node) => node.holds(facts).map(|holds| !holds),
            Self::Compare(field, op, value) => compare(*field, *op, value, facts),
        }
    }
}

fn compare(field: Field, op: Op, value: &Value, facts: &Facts<'_>) -> Option<bool> {
    match (value, field) {
        (Value::Number(wanted), Field::Clients) => Some(op.fits(facts.clients?.cmp(wanted))),
        (Value::Number(wanted), Field::Leaders) => Some(op.fits(facts.leaders?.cmp(wanted))),
        (Value::Version(wanted), _) => {
            let has = Version::parse(facts.version)?;
            Some(match op {
                // `version=2.10` is every 2.10.
                Op::Eq => has.begins_with(wanted),
                Op::Ne => !has.begins_with(wanted),
                op => op.fits(has.order(wanted)),
            })
        }
        (Value::Text(pattern), field) => {
            let has = match field {
                Field::Host => facts.host,
                Field::Region => facts.region,
                _ => facts.cluster,
            };
            if has.is_empty() {
                return None;
            }
            Some(glob(pattern, has) == (op == Op::Eq))
        }
        // The parser gives numbers to these two only.
        (Value::Number(_), _) => None,
    }
}

impl Op {
    fn fits(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split('+').next().unwrap_or_default();
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) if !pre.is_empty() => (numbers, Some(pre.to_owned())),
            Some(_) => return None,
            None => (text, None),
        };
        let numbers: Option<Vec<u64>> = numbers.split('.').map(|n| n.parse().ok()).collect();
        let numbers = numbers.filter(|n| n.len() <= 3)?;
        Some(Self { numbers, pre })
    }

    fn order(&self, other: &Self) -> Ordering {
        let part = |v: &Self, i: usize| v.numbers.get(i).copied().unwrap_or(0);
        (0..3)
            .map(|i| part(self, i).cmp(&part(other, i)))
            .find(|o| o.is_ne())
            .unwrap_or_else(|| match (&self.pre, &other.pre) {
                (None, None) => Ordering::Equal,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            })
    }

    fn begins_with(&self, wanted: &Self) -> bool {
        self.numbers.starts_with(&wanted.numbers) && (wanted.numbers.len() < 3 || self.pre == wanted.pre)
    }
}

/// `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Deeper is nobody's selection.
const DEEPEST: usize = 32;

struct Parser<'a> {
    text: &'a str,
    chars: Vec<char>,
    at: usize,
}

impl Parser<'_> {
    fn error(&self, what: impl Into<String>) -> FilterError {
        FilterError {
            text: self.text.to_owned(),
            at: self.at,
            what: what.into(),
        }
    }

    fn blank(&mut self) {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    fn any(&mut self) -> Result<Node, FilterError> {
        self.any_at(0)
    }

    fn any_at(&mut self, depth: usize) -> Result<Node, FilterError> {
        if depth > DEEPEST {
            return Err(self.error("too many parentheses"));
        }
        let mut nodes = vec![self.all_at(depth)?];
        while self.word("or") {
            nodes.push(self.all_at(depth)?);
        }
        Ok(one_or(nodes, Node::Any))
    }

    fn all_at(&mut self, depth: usize) -> Result<Node, FilterError> {
        let mut nodes = vec![self.term(depth)?];
        while self.sign(",") || self.word("and") {
            nodes.push(self.term(depth)?);
        }
        Ok(one_or(nodes, Node::All))
    }

    fn term(&mut self, depth: usize) -> Result<Node, FilterError> {
        if self.word("not") {
            if depth > DEEPEST {
                return Err(self.error("too many `not`"));
            }
            return Ok(Node::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.sign("(") {
            let node = self.any_at(depth + 1)?;
            if !self.sign(")") {
                return Err(self.error("expected `)`"));
            }
            return Ok(node);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, FilterError> {
        self.blank();
        let begin = self.at;
        let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            self.at = begin;
            let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            return Err(match name.as_str() {
                "" => self.error(format!("expected one of {known}")),
                name => self.error(format!("there is no {name:?} to compare, only {known}")),
            });
        };
        self.blank();
        let ops = [
            ("!=", Op::Ne),
            ("<=", Op::Le),
            (">=", Op::Ge),
            ("==", Op::Eq),
            ("=", Op::Eq),
            ("<", Op::Lt),
            (">", Op::Gt),
        ];
        let Some((sign, op)) = ops.into_iter().find(|(sign, _)| self.sign(sign)) else {
            return Err(self.error(format!("expected =, !=, <, <=, > or >= after {name}")));
        };
        self.blank();
        let at = self.at;
        let value = self.value()?;
        let fault = |parser: &mut Self, what: String| {
            parser.at = at;
            Err(parser.error(what))
        };
        if value.is_empty() {
            return fault(self, format!("expected a value after `{name}{sign}`"));
        }
        let value = match field {
            Field::Version => match Version::parse(&value) {
                Some(version) => Value::Version(version),
                None => return fault(self, format!("{value:?} is not a version like 2.10.26")),
            },
            Field::Clients | Field::Leaders => match value.parse() {
                Ok(number) => Value::Number(number),
                Err(_) => return fault(self, format!("{value:?} is not a whole number")),
            },
            Field::Host | Field::Region | Field::Cluster => {
                if !matches!(op, Op::Eq | Op::Ne) {
                    return fault(self, format!("{name} is a name: it can be = or !=, not {sign}"));
                }
                Value::Text(value)
            }
        };
        Ok(Node::Compare(*field, op, value))
    }

    fn value(&mut self) -> Result<String, FilterError> {
        for quote in ['\'', '"'] {
            if self.chars.get(self.at) == Some(&quote) {
                self.at += 1;
                let value = self.take(|c| c != quote);
                if self.chars.get(self.at) != Some(&quote) {
                    return Err(self.error(format!("expected {quote} at the end of the text")));
                }
                self.at += 1;
                return Ok(value);
            }
        }
        Ok(self.take(|c| c.is_alphanumeric() || "._-*+:/@$".contains(c)))
    }

    fn take(&mut self, of: impl Fn(char) -> bool) -> String {
        let begin = self.at;
        while self.chars.get(self.at).is_some_and(|c| of(*c)) {
            self.at += 1;
        }
        self.chars[begin..self.at].iter().collect()
    }

    fn sign(&mut self, sign: &str) -> bool {
        self.blank();
        let end = self.at + sign.len();
        let there = self
            .chars
            .get(self.at..end)
            .is_some_and(|s| s.iter().copied().eq(sign.chars()));
        if there {
            self.at = end;
        }
        there
    }

    fn word(&mut self, word: &str) -> bool {
        let begin = self.at;
        self.blank();
        if self.take(|c| c.is_ascii_alphabetic()).eq_ignore_ascii_case(word)
            && !self.chars.get(self.at).is_some_and(|c| "=!<>-_".contains(*c))
        {
            return true;
        }
        self.at = begin;
        false
    }
}

fn one_or(mut nodes: Vec<Node>, many: impl FnOnce(Vec<Node>) -> Node) -> Node {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => many(nodes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Facts<'_> = Facts {
        host: "iad-1",
        region: "iad",
        cluster: "east",
        version: "2.10.9",
        clients: Some(12),
        leaders: None,
    };

    fn holds(text: &str) -> Option<bool> {
        Filter::parse(text).unwrap_or_else(|e| panic!("{e}")).holds(&HOST)
    }

    fn error(text: &str) -> String {
        Filter::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn versions_are_compared_by_number_and_not_by_letter() {
        for (text, expected) in [
            ("version<2.10.26", true),
            ("version<2.9", false),
            ("version<=2.10.9", true),
            ("version>2.10.9", false),
            ("version>=2.11", false),
            ("version=2.10", true),
            ("version=2", true),
            ("version!=2.10.9", false),
            ("version=2.1", false),
            ("version>2.10.9-RC.1", true),
        ] {
            assert_eq!(holds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn and_binds_closer_than_or() {
        for (text, expected) in [
            ("region=iad and host=iad-1", true),
            ("region=fra, host=iad-1", false),
            ("region=fra or region = 'iad' and clients>5", true),
            ("(region=fra or region=iad) and clients > 50", false),
            ("not region=fra", true),
            ("NOT (host=iad-* AND cluster=\"east\")", false),
            ("host=*-1", true),
            ("host=i*d-*", true),
            ("host=iad", false),
        ] {
            assert_eq!(holds(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_neither_true_nor_false() {
        assert_eq!(holds("leaders=0"), None);
        assert_eq!(holds("not leaders=0"), None);
        assert_eq!(holds("leaders=0 or region=iad"), Some(true));
        assert_eq!(holds("leaders=0 and region=fra"), Some(false));
        let odd = Facts { version: "", ..HOST };
        assert_eq!(Filter::parse("version!=2.10").unwrap().holds(&odd), None);
    }

    #[test]
    fn an_error_says_what_and_where() {
        for (text, says) in [
            ("", "expected one of host, region"),
            ("version", "expected =, !=, <"),
            ("version<", "expected a value after `version<` at character 9"),
            ("version<new", "\"new\" is not a version"),
            ("clients>many", "\"many\" is not a whole number"),
            ("region<iad", "region is a name"),
            ("colour=red", "there is no \"colour\" to compare"),
            ("(region=iad", "expected `)`"),
            ("region=iad host=x", "expected `and`, `or` or the end at character 12"),
            ("region='iad", "expected '"),
            ("region=iad and", "expected one of host"),
        ] {
            assert!(error(text).contains(says), "{text}: {}", error(text));
        }
        assert!(error(&"(".repeat(1000)).contains("too many parentheses"));
        assert!(error(&"not ".repeat(1000)).contains("too many `not`"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z=<>!(),'\" .*é0-9-]{0,40}") {
            if let Ok(filter) = Filter::parse(&text) {
                let _ = filter.holds(&HOST);
            }
        }

        #[test]
        fn a_glob_without_a_star_is_equality(a in "[ab]{0,3}", b in "[ab]{0,3}") {
            prop_assert_eq!(glob(&a, &b), a == b);
        }
    }
}
