//! The model's patterns. They are Java's and must match the whole text; the `regex` crate reads nearly all of them.
//!
//! What it does not read is looking around, which six patterns do; those are written here in another way that accepts
//! the same texts. `\d` and `\w` mean ASCII, as in Java.

use regex::Regex;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    accepts: Regex,
    /// What is refused though it is accepted above.
    refuses: Option<Regex>,
}

/// Patterns that look around: as the model has them, what to accept instead, what to refuse of that.
const LOOKING_AROUND: [(&str, &str, Option<&str>); 6] = [
    // A word that is not a number has a character that is no digit.
    ("(?!^[0-9]+$)([a-zA-Z0-9-_]+)", r"[a-zA-Z0-9_-]*[a-zA-Z_-][a-zA-Z0-9_-]*", None),
    (r"((?!^\d+$)^[0-9a-zA-Z-_]+$)", r"[a-zA-Z0-9_-]*[a-zA-Z_-][a-zA-Z0-9_-]*", None),
    (
        r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?",
        r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9_-]{1,64})(:([a-zA-Z0-9_-]*[a-zA-Z_-][a-zA-Z0-9_-]*))?",
        None,
    ),
    (r"[0-9A-Za-z\.\-_]*(?<!\.)", r"([0-9A-Za-z._-]*[0-9A-Za-z_-])?", None),
    (
        r"(?=[/\.\-_A-Za-z0-9]+)((?!aws\.).*)|(\$(\.[\w_-]+(\[(\d+|\*)\])*)*)",
        r"[/._A-Za-z0-9-].*|\$(\.[a-zA-Z0-9_-]+(\[([0-9]+|\*)\])*)*",
        Some(r"aws\..*"),
    ),
    (r"(^(?!(system\x2e)))(^[_a-zA-Z0-9])([^$]*)", r"[_a-zA-Z0-9][^$]*", Some(r"system\..*")),
];

impl Pattern {
    /// Compiles a pattern as the model has it.
    pub fn compile(source: &str) -> Result<Self, regex::Error> {
        let known = LOOKING_AROUND.iter().find(|(pattern, ..)| *pattern == source);
        let (accepts, refuses) = known.map_or((source, None), |(_, accepts, refuses)| (*accepts, *refuses));
        let whole = |pattern: &str| Regex::new(&format!(r"\A(?:{})\z", in_ascii(pattern)));
        Ok(Self { accepts: whole(accepts)?, refuses: refuses.map(whole).transpose()? })
    }

    /// Whether the whole of `text` fits.
    pub fn fits(&self, text: &str) -> bool {
        self.accepts.is_match(text) && !self.refuses.as_ref().is_some_and(|refuses| refuses.is_match(text))
    }
}

/// Java's `\d` and `\w` are ASCII only, and a `-` behind a range is itself.
fn in_ascii(pattern: &str) -> String {
    pattern
        .replace(r"\d", "[0-9]")
        .replace(r"\w", "[a-zA-Z0-9_]")
        .replace("9-_", r"9\-_")
        .replace("Z-_", r"Z\-_")
        .replace("9-.", r"9\-.")
        .replace(r"9-\/", r"9\-\/")
        .replace("z-:", r"z\-:")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{LAMBDA, LOGS, SCHEDULER};

    #[test]
    fn every_pattern_of_the_models_is_read() {
        for (name, shape) in LAMBDA.shapes.iter().chain(&LOGS.shapes).chain(&SCHEDULER.shapes) {
            if let Some(source) = &shape.pattern {
                assert!(Pattern::compile(source).is_ok(), "{name}: {source}: {:?}", Pattern::compile(source));
            }
        }
        for (source, ..) in LOOKING_AROUND {
            let mut shapes = LAMBDA.shapes.values().chain(SCHEDULER.shapes.values());
            assert!(shapes.any(|shape| shape.pattern.as_deref() == Some(source)), "unused: {source}");
        }
    }

    #[test]
    fn patterns_accept_what_javas_do() {
        for (shape, good, bad) in [
            ("Alias", vec!["prod", "v1", "1a", "-"], vec!["1", "2024", "", "a b"]),
            ("FunctionUrlQualifier", vec!["prod"], vec!["1", "$LATEST", ""]),
            (
                "FunctionUrlFunctionName",
                vec!["f", "f:prod", "function:123", "123456789012:function:f:p1"],
                vec!["f:1", "f:$LATEST", "f:p:q"],
            ),
            ("S3Bucket", vec!["a.b", "", "bucket-1"], vec!["bucket.", "a/b"]),
            ("CollectionName", vec!["_a", "systemx"], vec!["system.x", "$a", ""]),
            ("NumericLatestPublishedOrAliasQualifier", vec!["$LATEST", "1", "a$b"], vec!["", "a!", "a b"]),
            ("LocalMountPath", vec!["/mnt/a-b_c.d"], vec!["/mnt/", "/tmp/a"]),
            ("TagKey", vec!["Ünïcode key", "a:b/c"], vec!["a%b"]),
        ] {
            let pattern = Pattern::compile(LAMBDA.shape(shape).unwrap().pattern.as_ref().unwrap()).unwrap();
            good.iter().for_each(|text| assert!(pattern.fits(text), "{shape} refuses {text:?}"));
            bad.iter().for_each(|text| assert!(!pattern.fits(text), "{shape} accepts {text:?}"));
        }
    }
}
