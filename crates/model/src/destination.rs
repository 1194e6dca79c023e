//! Where the outcome of an event goes: AWS's destinations and dead-letter targets by ARN, and two of our own.
//!
//! ```text
//! arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]   a function, called with it as an event
//! arn:aws:sqs:REGION:ACCOUNT:NAME                           a queue at the AWS endpoint of the configuration
//! arn:aws:lambent:REGION:ACCOUNT:queue/NAME                 a built-in queue, kept by this system
//! arn:aws:lambent:REGION:ACCOUNT:url/http://HOST/PATH       an HTTP endpoint, which gets it by POST
//! ```

use std::fmt;
use std::str::FromStr;

use crate::arn::{FunctionArn, FunctionRef, Qualifier};
use crate::id::{AccountId, Region};

/// Why a text is no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// AWS has such destinations, this system has not.
    #[error("{0} is no destination here: use a function, an SQS queue, a built-in queue or an HTTP URL")]
    NotBuilt(String),
    /// Nobody has such destinations.
    #[error("{0} is no destination")]
    Unknown(String),
}

/// Where the outcome of an event goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A function.
    Function {
        /// Which.
        function: FunctionArn,
        /// Which version of it.
        qualifier: Option<Qualifier>,
    },
    /// A queue that speaks SQS.
    Sqs {
        /// Its region.
        region: Region,
        /// Its account.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// A built-in queue.
    Queue {
        /// The region of the node.
        region: Region,
        /// Its account.
        account: AccountId,
        /// Its name: letters, digits, `-`, `_` and `.`, 1 to 80 long.
        name: String,
    },
    /// An HTTP endpoint.
    Url {
        /// The region of the node.
        region: Region,
        /// The account that wants it.
        account: AccountId,
        /// The endpoint, `http://…` or `https://…`.
        url: String,
    },
}

fn is_queue_name(name: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=80).contains(&name.len()) && name.bytes().all(is_letter)
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown(text.to_owned());
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let &[_, partition, service, region, account, resource] = parts.as_slice() else { return Err(unknown()) };
        if !text.starts_with("arn:") || !partition.starts_with("aws") {
            return Err(unknown());
        }
        if matches!(service, "sns" | "events" | "s3") {
            return Err(Error::NotBuilt(text.to_owned()));
        }
        let account: AccountId = account.parse().map_err(|_| unknown())?;
        let region = Region::new(region);
        match (service, resource.split_once('/')) {
            ("lambda", _) => {
                let named: FunctionRef = text.parse().map_err(|_| unknown())?;
                Ok(Self::Function { function: named.resolve(&account, &region), qualifier: named.qualifier })
            }
            ("sqs", None) if is_queue_name(resource) => Ok(Self::Sqs { region, account, name: resource.to_owned() }),
            ("lambent", Some(("queue", name))) if is_queue_name(name) => {
                Ok(Self::Queue { region, account, name: name.to_owned() })
            }
            ("lambent", Some(("url", url))) if url.starts_with("http://") || url.starts_with("https://") => {
                Ok(Self::Url { region, account, url: url.to_owned() })
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function { function, qualifier: None } => function.fmt(f),
            Self::Function { function, qualifier: Some(qualifier) } => write!(f, "{function}:{qualifier}"),
            Self::Sqs { region, account, name } => write!(f, "arn:aws:sqs:{region}:{account}:{name}"),
            Self::Queue { region, account, name } => write!(f, "arn:aws:lambent:{region}:{account}:queue/{name}"),
            Self::Url { region, account, url } => write!(f, "arn:aws:lambent:{region}:{account}:url/{url}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn destinations_read_back_as_they_were_written() {
        for text in [
            "arn:aws:lambda:us-east-1:000000000000:function:f",
            "arn:aws:lambda:us-east-1:000000000000:function:f:prod",
            "arn:aws:sqs:us-east-1:000000000000:dead.fifo",
            "arn:aws:lambent:us-east-1:000000000000:queue/dead-letters",
            "arn:aws:lambent:us-east-1:000000000000:url/https://host:1/a/b?c=d:e",
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_destination_is_refused() {
        for text in [
            "",
            "f",
            "arn:aws:sqs:us-east-1:000000000000:a/b",
            "arn:aws:sqs:us-east-1:0:q",
            "arn:aws:lambda:us-east-1:000000000000:layer:f",
            "arn:aws:lambent:us-east-1:000000000000:url/ftp://x",
            "arn:aws:lambent:us-east-1:000000000000:queue/",
            "arn:aws:dynamodb:us-east-1:000000000000:table/x",
        ] {
            assert_eq!(text.parse::<Destination>(), Err(Error::Unknown(text.to_owned())));
        }
        let topic = "arn:aws:sns:us-east-1:000000000000:topic";
        assert_eq!(topic.parse::<Destination>(), Err(Error::NotBuilt(topic.to_owned())));
    }
}
