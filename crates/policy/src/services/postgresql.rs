//! A PostgreSQL server.
//!
//! A query runs in a `READ ONLY` transaction that is rolled back, prepared by itself (so it is one statement), under the server's
//! `statement_timeout`; what gives no rows is refused before it runs. What is read of an answer is counted beneath the protocol
//! ([`Metered`]): no row, however wide, is held that is beyond the bound. What else a query could do, functions of the server that reach
//! outside say, is a matter of the rights of the service's user.
//!
//! A few sessions are kept; before one is used again the server forgets all that was in it. One that failed, or whose asker went, is closed.
//!
//! Not done: TLS. The address should be a Unix socket, this machine, or a network that is trusted.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, BytesMut};
use lambent_model::service::{Query, Scalar};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, IsolationLevel, NoTls, Row};
use tokio_util::task::AbortOnDropHandle;

use super::result::{Kind, Reading};
use super::{Error, MOST_BYTES, ResultDigest, Service, shown};

/// Sessions that are kept for the next queries.
const MOST_IDLE: usize = 4;
/// Rows that are fetched at once.
const PAGE: i32 = 256;
/// What the protocol may add to the bytes of a result: 4 for each value, descriptions, notices.
const OVERHEAD: usize = 1 << 20;

/// How to get in.
#[derive(Clone)]
pub struct Login {
    /// A name, an address, or the directory of a Unix socket.
    pub host: String,
    /// Its port, which is also part of a Unix socket's name.
    pub port: u16,
    /// The database.
    pub database: String,
    /// As whom.
    pub user: String,
    /// None: the server wants none.
    pub password: Option<String>,
}

/// The server.
pub struct PostgreSql {
    login: Login,
    within: Duration,
    idle: Mutex<Vec<Session>>,
}

struct Session {
    client: Client,
    /// What may still be read.
    left: Arc<AtomicUsize>,
    _driver: AbortOnDropHandle<()>,
}

impl PostgreSql {
    /// The server behind `login`, for queries that take no longer than `within`.
    pub fn new(login: Login, within: Duration) -> Self {
        Self { login, within, idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that was kept and is still good, or a new one.
    async fn session(&self) -> Result<Session, Error> {
        let kept = || self.idle().pop();
        while let Some(session) = kept() {
            session.left.store(MOST_BYTES + OVERHEAD, Ordering::Relaxed);
            // Also tells whether the server is still there: it may have been started again since.
            if session.client.batch_execute("DISCARD ALL").await.is_ok() {
                return Ok(session);
            }
        }
        let session = match self.login.host.strip_prefix('/') {
            Some(_) => {
                let path = PathBuf::from(&self.login.host).join(format!(".s.PGSQL.{}", self.login.port));
                self.open(UnixStream::connect(path).await).await
            }
            None => self.open(TcpStream::connect((self.login.host.as_str(), self.login.port)).await).await,
        };
        session.map_err(|error| Error::Unreachable(shown(&error)))
    }

    async fn open<S>(&self, connected: std::io::Result<S>) -> Result<Session, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = connected.map_err(|error| error.to_string())?;
        let left = Arc::new(AtomicUsize::new(MOST_BYTES + OVERHEAD));
        let mut config = Config::new();
        config.user(&self.login.user).dbname(&self.login.database).application_name("lambent");
        // The server's own bound, for when this end is gone.
        config.options(format!("-c statement_timeout={}", self.within.as_millis().max(1)));
        if let Some(password) = &self.login.password {
            config.password(password);
        }
        let metered = Metered { stream, left: left.clone() };
        let (client, connection) = config.connect_raw(metered, NoTls).await.map_err(|error| told(&error))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = told(&error), "a session of a service ended");
            }
        });
        Ok(Session { client, left, _driver: AbortOnDropHandle::new(driver) })
    }

    async fn read(&self, query: &Query) -> Result<ResultDigest, Error> {
        let mut session = self.session().await?;
        let digest = session.digest(query).await.map_err(|problem| self.failed(problem, &session))?;
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push(session);
        }
        Ok(digest)
    }

    fn failed(&self, problem: Problem, session: &Session) -> Error {
        match problem {
            Problem::Own(error) => error,
            Problem::Server(_) if session.left.load(Ordering::Relaxed) == 0 => {
                Error::TooLarge { most: MOST_BYTES, what: "bytes" }
            }
            Problem::Server(error) => match error.code().map(|code| code.code()) {
                // query_canceled: by statement_timeout.
                Some("57014") => Error::TimedOut(self.within),
                Some(_) => Error::Refused(shown(&told(&error))),
                None => Error::Unreachable(shown(&told(&error))),
            },
        }
    }
}

#[async_trait]
impl Service for PostgreSql {
    async fn digest(&self, query: &Query) -> Result<ResultDigest, Error> {
        let read = tokio::time::timeout(self.within, self.read(query)).await;
        read.unwrap_or(Err(Error::TimedOut(self.within)))
    }
}

/// Why there is no digest.
enum Problem {
    Own(Error),
    Server(tokio_postgres::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// What the server, or the connection to it, says.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => told.message().to_owned(),
        None => {
            let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
            causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
        }
    }
}

impl Session {
    async fn digest(&mut self, query: &Query) -> Result<ResultDigest, Problem> {
        let begin = self.client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead);
        let transaction = begin.start().await?;
        let statement = transaction.prepare(&query.text(|number| format!("${number}"))).await?;
        if statement.columns().is_empty() {
            return Err(Error::Refused("it gives no rows".to_owned()).into());
        }
        let values: Vec<Bound> = query.values().map(Bound::of).collect();
        let places = statement.params().len();
        if places != values.len() {
            let given = values.len();
            let text =
                format!("it has places for {places} values and is given {given}; one between quotes is no place");
            return Err(Error::Refused(text).into());
        }
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
        let portal = transaction.bind(&statement, &values).await?;
        let mut reading = Reading::of(statement.columns().iter().map(|column| (column.name(), column.type_().name())))?;
        loop {
            let rows = transaction.query_portal(&portal, PAGE).await?;
            rows.iter().try_for_each(|row| take(&mut reading, row))?;
            if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                break;
            }
        }
        transaction.rollback().await?;
        Ok(reading.end())
    }
}

fn take(reading: &mut Reading, row: &Row) -> Result<(), Problem> {
    reading.row()?;
    for column in 0..row.len() {
        match row.try_get::<_, Option<Raw<'_>>>(column)? {
            None => reading.value(Kind::Null, b"")?,
            Some(Raw(bytes)) => reading.value(Kind::Sent, bytes)?,
        }
    }
    Ok(())
}

/// A value as the server sends it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A value as text: the server reads it as what its place is.
#[derive(Debug)]
struct Bound(String);

impl Bound {
    fn of(value: &Scalar) -> Self {
        Self(match value {
            Scalar::Text(text) => text.clone(),
            value @ (Scalar::Number(_) | Scalar::Truth(_)) => value.to_string(),
        })
    }
}

impl ToSql for Bound {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A connection of which only so many bytes are read.
struct Metered<S> {
    stream: S,
    left: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let count = buffer.filled().len() - before;
        match this.left.load(Ordering::Relaxed).checked_sub(count) {
            Some(left) => {
                this.left.store(left, Ordering::Relaxed);
                read
            }
            None => {
                this.left.store(0, Ordering::Relaxed);
                Poll::Ready(Err(std::io::Error::other("the answer is too large")))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
