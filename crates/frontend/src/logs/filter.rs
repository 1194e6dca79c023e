//! Filter patterns of CloudWatch Logs: terms, phrases, exclusions, alternatives, regular expressions, JSON conditions.
//!
//! | pattern | lines that match |
//! | --- | --- |
//! | `ERROR timeout` | have both terms |
//! | `?ERROR ?WARN` | have one of them |
//! | `ERROR -retry` | have the first and not the second |
//! | `"out of memory"` | have the phrase |
//! | `%5\d\d%` | fit the expression |
//! | `{ $.level = "ERROR" && $.ms > 100 }` | are JSON objects of which it is true |
//!
//! Patterns for space-delimited lines (`[ip, user, ...]`) are refused with a text that says so.
//! Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html>

use regex::Regex;
use serde_json::Value;

/// Nesting of a condition.
const MOST_DEPTH: usize = 16;

/// A pattern, read.
#[derive(Debug)]
pub(super) enum Filter {
    Everything,
    Terms { all: Vec<Term>, any: Vec<Term>, none: Vec<Term> },
    Json(Condition),
}

#[derive(Debug)]
pub(super) enum Term {
    Text(String),
    Regex(Regex),
}

#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Is { selector: Vec<Step>, test: Test },
}

#[derive(Debug)]
pub(super) enum Step {
    Field(String),
    Index(usize),
}

#[derive(Debug)]
pub(super) enum Test {
    Text { equal: bool, text: String },
    Fits { equal: bool, regex: Regex },
    Number { operator: Operator, number: f64 },
    Null,
    True,
    False,
    Exists(bool),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Operator {
    Equal,
    Differs,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Filter {
    /// Reads a pattern; the error is for the caller.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let pattern = pattern.trim();
        match pattern.chars().next() {
            None => Ok(Self::Everything),
            Some('{') => {
                let inner = pattern.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                let mut parser = Parser { rest: inner.ok_or_else(invalid)?, depth: 0 };
                let condition = parser.any()?;
                if parser.rest.trim().is_empty() { Ok(Self::Json(condition)) } else { Err(invalid()) }
            }
            Some('[') => Err("Filter patterns for space-delimited log events are not built yet".to_owned()),
            Some(_) => terms(pattern),
        }
    }

    /// Whether a line fits.
    pub fn matches(&self, line: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Terms { all, any, none } => {
                all.iter().all(|term| term.is_in(line))
                    && (any.is_empty() || any.iter().any(|term| term.is_in(line)))
                    && !none.iter().any(|term| term.is_in(line))
            }
            Self::Json(condition) => {
                line.trim_start().starts_with('{')
                    && serde_json::from_str(line).is_ok_and(|line: Value| condition.holds(&line))
            }
        }
    }
}

impl Term {
    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Text(text) => line.contains(text.as_str()),
            Self::Regex(regex) => regex.is_match(line),
        }
    }
}

fn invalid() -> String {
    "Invalid filter pattern".to_owned()
}

fn terms(pattern: &str) -> Result<Filter, String> {
    let (mut all, mut any, mut none) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = pattern;
    while !rest.is_empty() {
        let (target, body) = match rest.chars().next() {
            Some('?') => (&mut any, rest.get(1..).unwrap_or_default()),
            Some('-') => (&mut none, rest.get(1..).unwrap_or_default()),
            _ => (&mut all, rest),
        };
        let (term, behind) = match body.chars().next() {
            Some('"') => {
                let (text, behind) = quoted(body)?;
                (Term::Text(text), behind)
            }
            Some('%') => {
                let (source, behind) = body.get(1..).and_then(|body| body.split_once('%')).ok_or_else(invalid)?;
                (Term::Regex(Regex::new(source).map_err(|_| invalid())?), behind)
            }
            _ => {
                let end = body.find(char::is_whitespace).unwrap_or(body.len());
                let (text, behind) = body.split_at(end);
                // Other marks must be in quotes, says AWS.
                if text.is_empty() || text.contains(['"', '[', ']', '{', '}', '(', ')']) {
                    return Err(invalid());
                }
                (Term::Text(text.to_owned()), behind)
            }
        };
        target.push(term);
        rest = behind.trim_start();
    }
    Ok(Filter::Terms { all, any, none })
}

/// A text in quotes at the beginning of `text`, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((content, text.get(at + 1..).unwrap_or_default())),
            '\\' => content.extend(chars.next().map(|(_, c)| c)),
            c => content.push(c),
        }
    }
    Err(invalid())
}

/// Reads a JSON condition: `any := all ('||' all)*`, `all := one ('&&' one)*`, `one := '(' any ')' | selector test`.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.all()?];
        while self.take("||") {
            parts.push(self.all()?);
        }
        Ok(Condition::Any(parts))
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut parts = vec![self.one()?];
        while self.take("&&") {
            parts.push(self.one()?);
        }
        Ok(Condition::All(parts))
    }

    fn one(&mut self) -> Result<Condition, String> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > MOST_DEPTH {
                return Err(invalid());
            }
            let inner = self.any()?;
            self.depth -= 1;
            return if self.take(")") { Ok(inner) } else { Err(invalid()) };
        }
        let selector = self.selector()?;
        Ok(Condition::Is { selector, test: self.test()? })
    }

    fn selector(&mut self) -> Result<Vec<Step>, String> {
        if !self.take("$") {
            return Err(invalid());
        }
        let mut steps = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('.') {
                let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
                let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                let (name, rest) = rest.split_at(end);
                if name.is_empty() {
                    return Err(invalid());
                }
                steps.push(Step::Field(name.to_owned()));
                self.rest = rest;
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                let (inside, rest) = rest.split_once(']').ok_or_else(invalid)?;
                let inside = inside.trim();
                let name = inside.trim_matches(['"', '\'']);
                steps.push(match inside.parse() {
                    Ok(index) => Step::Index(index),
                    Err(_) if name.len() + 2 == inside.len() => Step::Field(name.to_owned()),
                    Err(_) => return Err(invalid()),
                });
                self.rest = rest;
            } else {
                return if steps.is_empty() { Err(invalid()) } else { Ok(steps) };
            }
        }
    }

    fn test(&mut self) -> Result<Test, String> {
        if self.take("IS") {
            let tests = [("NULL", Test::Null), ("TRUE", Test::True), ("FALSE", Test::False)];
            return tests.into_iter().find(|(word, _)| self.take(word)).map(|(_, test)| test).ok_or_else(invalid);
        }
        if self.take("NOT") {
            return if self.take("EXISTS") { Ok(Test::Exists(false)) } else { Err(invalid()) };
        }
        if self.take("EXISTS") {
            return Ok(Test::Exists(true));
        }
        let operators = [
            ("!=", Operator::Differs),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::More),
        ];
        let found = operators.into_iter().find(|(sign, _)| self.take(sign)).ok_or_else(invalid)?;
        self.operand(found.1)
    }

    fn operand(&mut self, operator: Operator) -> Result<Test, String> {
        self.rest = self.rest.trim_start();
        let equal = match operator {
            Operator::Equal => Some(true),
            Operator::Differs => Some(false),
            Operator::Less | Operator::AtMost | Operator::More | Operator::AtLeast => None,
        };
        if self.rest.starts_with('"') {
            let (text, rest) = quoted(self.rest)?;
            self.rest = rest;
            return Ok(Test::Text { equal: equal.ok_or_else(invalid)?, text });
        }
        if let Some(rest) = self.rest.strip_prefix('%') {
            let (source, rest) = rest.split_once('%').ok_or_else(invalid)?;
            self.rest = rest;
            let regex = Regex::new(source).map_err(|_| invalid())?;
            return Ok(Test::Fits { equal: equal.ok_or_else(invalid)?, regex });
        }
        let end =
            self.rest.find(|c: char| c.is_whitespace() || matches!(c, ')' | '&' | '|')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match (word.parse::<f64>(), equal) {
            (Ok(number), _) => Ok(Test::Number { operator, number }),
            (Err(_), Some(equal)) if !word.is_empty() => Ok(Test::Text { equal, text: word.to_owned() }),
            _ => Err(invalid()),
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

impl Condition {
    fn holds(&self, line: &Value) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(line)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(line)),
            Self::Is { selector, test } => {
                let found = selector.iter().try_fold(line, |value, step| match step {
                    Step::Field(name) => value.get(name),
                    Step::Index(index) => value.get(index),
                });
                test.holds(found)
            }
        }
    }
}

impl Test {
    fn holds(&self, found: Option<&Value>) -> bool {
        match self {
            Self::Exists(wanted) => found.is_some() == *wanted,
            Self::Null => found.is_some_and(Value::is_null),
            Self::True => found == Some(&Value::Bool(true)),
            Self::False => found == Some(&Value::Bool(false)),
            Self::Text { equal, text } => {
                shown(found).is_some_and(|found| fits_wildcards(text.as_bytes(), found.as_bytes()) == *equal)
            }
            Self::Fits { equal, regex } => shown(found).is_some_and(|found| regex.is_match(&found) == *equal),
            Self::Number { operator, number } => {
                let Some(found) = found.and_then(Value::as_f64) else {
                    // `!= 3` is true of what is no number.
                    return matches!(operator, Operator::Differs) && found.is_some();
                };
                match operator {
                    Operator::Equal => found == *number,
                    Operator::Differs => found != *number,
                    Operator::Less => found < *number,
                    Operator::AtMost => found <= *number,
                    Operator::More => found > *number,
                    Operator::AtLeast => found >= *number,
                }
            }
        }
    }
}

/// A scalar as text.
fn shown(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => value.map(Value::to_string),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything. Only the last star is ever gone back to, so the work is
/// bounded by the product of both lengths.
fn fits_wildcards(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if text.get(t) == Some(c) => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_the_lines_they_should() {
        let json = r#"{"level":"ERROR","ms":120,"user":{"name":"ann","ids":[1,2]},"ok":true,"none":null}"#;
        for (pattern, line, expected) in [
            ("", "anything", true),
            ("ERROR", "an ERROR here", true),
            ("ERROR", "an error here", false),
            ("ERROR timeout", "timeout after ERROR", true),
            ("ERROR timeout", "ERROR only", false),
            ("?ERROR ?WARN", "a WARN", true),
            ("?ERROR ?WARN", "an INFO", false),
            ("ERROR -retry", "ERROR, will retry", false),
            ("\"out of memory\"", "it is out of memory!", true),
            ("\"out of memory\"", "out memory of", false),
            ("%5\\d\\d%", "status 503", true),
            ("%5\\d\\d%", "status 203", false),
            ("{ $.level = \"ERROR\" }", json, true),
            ("{ $.level = ERROR }", json, true),
            ("{ $.level = \"ERR*\" }", json, true),
            ("{ $.level = \"W*\" }", json, false),
            ("{ $.level != \"ERROR\" }", json, false),
            ("{ $.ms > 100 && $.user.name = \"ann\" }", json, true),
            ("{ ($.ms > 200 || $.user.ids[1] = 2) && $.ok IS TRUE }", json, true),
            ("{ $.none IS NULL }", json, true),
            ("{ $.missing NOT EXISTS }", json, true),
            ("{ $.level = %^ERR% }", json, true),
            ("{ $.level = \"ERROR\" }", "no json", false),
        ] {
            assert_eq!(Filter::parse(pattern).unwrap().matches(line), expected, "{pattern} on {line}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in
            ["{ $.a }", "{ $.a = }", "{ a = 1 }", "{ $.a = 1", "\"open", "%(%", "[ip, user]", "{ ($.a = 1 }", "-"]
        {
            assert!(Filter::parse(pattern).is_err(), "{pattern}");
        }
        let deep = format!("{{ {} $.a = 1 {} }}", "(".repeat(1000), ")".repeat(1000));
        assert!(Filter::parse(&deep).is_err());
    }
}
