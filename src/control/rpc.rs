//! JSON-RPC 2.0, one object a line: from a line to a call of the API, and from its outcome to a line.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    AorEntry, ConnectionEntry, ControlApi, Draining, HealthReport, NewBinding, Refusal, Restarted, Sample, Targets, Traced,
    TrunkEntry, samples,
};
use crate::trace::session::Query;
use crate::trace::{Tap, Wanted};

pub const PARSE_ERROR: i64 = -32700;
pub const INVALID_REQUEST: i64 = -32600;
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
/// What the request names does not exist.
pub const NOT_FOUND: i64 = -32001;
/// The server will not do it; the message says why.
pub const REFUSED: i64 = -32002;
/// All places of the control socket are taken.
pub const BUSY: i64 = -32003;

/// Answers one line with one line. A notification (a request without `id`) is performed but not answered, even if it fails. If a
/// trace has begun, its output and its answer are for the caller to write.
pub fn answer(line: &[u8], api: &dyn ControlApi, out: &mut impl Write) -> io::Result<Option<Began>> {
    let request = match parse(line) {
        Ok(request) => request,
        Err((id, error)) => {
            tell(&error);
            return write_error(out, &id, error).map(|()| None);
        }
    };
    let outcome = perform(&request.method, request.params, api);
    // Why a reload is refused the server logs itself, whoever asked for it.
    if let Err(error) = &outcome
        && (request.method != "reload" || error.code != REFUSED)
    {
        tell(error);
    }
    match (request.id, outcome) {
        (id, Ok(Done::Tracing(tap))) => return Ok(Some(Began { id, tap })),
        (None, _) => {}
        (Some(id), Ok(result)) => write_result(out, &id, result)?,
        (Some(id), Err(error)) => write_error(out, &id, error)?,
    }
    Ok(None)
}

/// A trace that has begun.
pub struct Began {
    /// `None`: no answer is expected.
    pub id: Option<Value>,
    pub tap: Tap,
}

/// Writes the answer of a trace that has ended.
pub fn write_traced(out: &mut impl Write, id: &Value, traced: Traced) -> io::Result<()> {
    write_result(out, id, Done::Traced(traced))
}

fn write_result(out: &mut impl Write, id: &Value, result: Done) -> io::Result<()> {
    write_line(out, &Response { jsonrpc: "2.0", id, result: Some(result), error: None })
}

/// Logs a request that failed. Only the socket's owner can make requests, so the lines need no limit.
fn tell(error: &Error) {
    for line in error.message.lines() {
        log::info!("control socket: refused: {line}");
    }
}

/// Writes an error line for the request `id` (null if unknown).
pub fn write_error(out: &mut impl Write, id: &Value, error: Error) -> io::Result<()> {
    write_line(out, &Response { jsonrpc: "2.0", id, result: None, error: Some(error) })
}

/// An `error` object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Error {
    pub code: i64,
    pub message: String,
}

impl Error {
    pub fn new(code: i64, message: impl Into<String>) -> Error {
        let message = message.into();
        Error { code, message }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::NotFound(message) => Error::new(NOT_FOUND, message),
            Refusal::Refused(message) => Error::new(REFUSED, message),
        }
    }
}

#[derive(Serialize)]
struct Response<'r> {
    jsonrpc: &'static str,
    id: &'r Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Done>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

/// The result of a call.
#[derive(Serialize)]
#[serde(untagged)]
enum Done {
    Version(String),
    Stats(Vec<Sample>),
    Health(HealthReport),
    Connections(Vec<ConnectionEntry>),
    Trunks(Vec<TrunkEntry>),
    Targets(Targets),
    Reloaded(String),
    Restarted(Restarted),
    Draining(Draining),
    Level(String),
    Shown(Vec<AorEntry>),
    Added(u32),
    Removed(usize),
    #[serde(skip)]
    Tracing(Tap),
    Traced(Traced),
}

fn write_line(out: &mut impl Write, response: &Response<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *out, response)?;
    out.write_all(b"\n")
}

struct Request {
    /// `None`: a notification.
    id: Option<Value>,
    method: String,
    params: Value,
}

fn parse(line: &[u8]) -> Result<Request, (Value, Error)> {
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        let message = format!("this is not JSON: {error}");
        (Value::Null, Error::new(PARSE_ERROR, message))
    })?;
    let invalid = |id: &Option<Value>, message: &str| {
        let id = id.clone().unwrap_or(Value::Null);
        (id, Error::new(INVALID_REQUEST, message))
    };
    let Value::Object(mut object) = value else {
        return Err(invalid(&None, "a request is one JSON object on a line"));
    };
    let id = object.remove("id");
    if matches!(id, Some(Value::Array(_) | Value::Object(_) | Value::Bool(_))) {
        return Err(invalid(&None, "id must be a string, a number or null"));
    }
    if object.remove("jsonrpc") != Some(Value::from("2.0")) {
        return Err(invalid(&id, "jsonrpc must be \"2.0\""));
    }
    let Some(Value::String(method)) = object.remove("method") else {
        return Err(invalid(&id, "method must be a string"));
    };
    let params = object.remove("params").unwrap_or(Value::Null);
    Ok(Request { id, method, params })
}

fn perform(method: &str, params: Value, api: &dyn ControlApi) -> Result<Done, Error> {
    let done = match method {
        "version" => {
            params_of(params, [])?;
            Done::Version(api.version())
        }
        "stats" => {
            let [prefix] = params_of(params, ["prefix"])?;
            let prefix = prefix.text()?.unwrap_or_default();
            Done::Stats(samples(&api.metrics(), &prefix))
        }
        "health" => {
            params_of(params, [])?;
            Done::Health(api.health())
        }
        "connections" => {
            params_of(params, [])?;
            Done::Connections(api.connections())
        }
        "trunks" => {
            params_of(params, [])?;
            Done::Trunks(api.trunks())
        }
        "targets" => {
            params_of(params, [])?;
            Done::Targets(api.targets())
        }
        "reload" => {
            params_of(params, [])?;
            Done::Reloaded(api.reload()?)
        }
        "restart" => {
            let [deadline] = params_of(params, ["deadline"])?;
            Done::Restarted(api.restart(deadline.time()?)?)
        }
        "drain" => {
            let [deadline, calls] = params_of(params, ["deadline", "calls"])?;
            Done::Draining(api.drain(deadline.time()?, calls.flag()?)?)
        }
        "log" => {
            let [level] = params_of(params, ["level"])?;
            Done::Level(api.log(level.text()?.as_deref())?)
        }
        "ul.show" => {
            let [aor] = params_of(params, ["aor"])?;
            Done::Shown(api.ul_show(aor.text()?.as_deref())?)
        }
        "ul.add" => {
            let [aor, contact, expires, q, path] = params_of(params, ["aor", "contact", "expires", "q", "path"])?;
            let (aor, contact) = (aor.required()?, contact.required()?);
            let binding = NewBinding { aor, contact, expires: expires.seconds()?, q: q.preference()?, path: path.text()? };
            Done::Added(api.ul_add(&binding)?)
        }
        "ul.rm" => {
            let [aor, contact] = params_of(params, ["aor", "contact"])?;
            let aor = aor.required()?;
            Done::Removed(api.ul_rm(&aor, contact.text()?.as_deref())?)
        }
        "trace" => Done::Tracing(trace(params, api)?),
        _ => {
            let message = format!(
                "no method {method:?}; there are version, stats, health, connections, targets, trunks, reload, restart, drain, log, trace, ul.show, ul.add, ul.rm"
            );
            return Err(Error::new(METHOD_NOT_FOUND, message));
        }
    };
    Ok(done)
}

fn trace(params: Value, api: &dyn ControlApi) -> Result<Tap, Error> {
    let [call, user, peer, seconds, count] = params_of(params, ["call", "user", "peer", "seconds", "count"])?;
    let (call, user, peer) = (call.text()?, user.text()?, peer.text()?);
    let wanted = Wanted::new(call.as_deref(), user.as_deref(), peer.as_deref()).map_err(invalid_params)?;
    let seconds = seconds.number(Query::MOST_SECONDS)?.unwrap_or(Query::DEFAULT_SECONDS);
    let query = Query {
        wanted,
        time: Duration::from_secs(seconds.into()),
        count: count.number(Query::MOST_COUNT)?.unwrap_or(Query::DEFAULT_COUNT).into(),
    };
    let Some(taps) = api.taps() else {
        return Err(Error::new(REFUSED, "this server cannot be traced"));
    };
    taps.open(query).map_err(|why| Error::new(REFUSED, why))
}

/// A parameter and the request's value for it; null means absent.
struct Param {
    name: &'static str,
    value: Value,
}

impl Param {
    fn text(self) -> Result<Option<String>, Error> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            other => Err(invalid_params(format!("{} must be a string, not {other}", self.name))),
        }
    }

    /// Reads true or false, which is what absence means.
    fn flag(self) -> Result<bool, Error> {
        match self.value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            other => Err(invalid_params(format!("{} must be true or false, not {other}", self.name))),
        }
    }

    fn required(self) -> Result<String, Error> {
        let name = self.name;
        self.text()?.ok_or_else(|| invalid_params(format!("{name} is missing")))
    }

    /// Reads a time to live: whole seconds, at least one.
    fn seconds(self) -> Result<Option<u32>, Error> {
        self.seconds_from(1)
    }

    /// Reads the q of a contact.
    fn preference(self) -> Result<Option<f64>, Error> {
        match (self.value.is_null(), self.value.as_f64()) {
            (true, _) => Ok(None),
            (false, Some(q)) if (0.0..=1.0).contains(&q) => Ok(Some(q)),
            _ => Err(invalid_params(format!("{} must be a number from 0 to 1, not {}", self.name, self.value))),
        }
    }

    /// Reads a whole number from 1.
    fn number(self, most: u32) -> Result<Option<u32>, Error> {
        if self.value.is_null() {
            return Ok(None);
        }
        let number = self.value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number {
            Some(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(invalid_params(format!("{} must be a whole number from 1 to {most}, not {}", self.name, self.value))),
        }
    }

    /// A time in seconds, 0 among them.
    fn time(self) -> Result<Option<Duration>, Error> {
        Ok(self.seconds_from(0)?.map(|seconds| Duration::from_secs(u64::from(seconds))))
    }

    fn seconds_from(self, least: u32) -> Result<Option<u32>, Error> {
        if self.value.is_null() {
            return Ok(None);
        }
        let seconds = self.value.as_u64().and_then(|s| u32::try_from(s).ok());
        match seconds {
            Some(seconds) if seconds >= least => Ok(Some(seconds)),
            _ => Err(invalid_params(format!(
                "{} must be a number of seconds from {least} to {}, not {}",
                self.name,
                u32::MAX,
                self.value
            ))),
        }
    }
}

/// Returns the parameters called `names`, given by name or by position; any others are an error.
fn params_of<const N: usize>(params: Value, names: [&'static str; N]) -> Result<[Param; N], Error> {
    let expected = if N == 0 { "this method takes none".to_owned() } else { format!("this method takes {}", names.join(", ")) };
    match params {
        Value::Null => Ok(names.map(|name| Param { name, value: Value::Null })),
        Value::Array(list) => {
            if list.len() > N {
                return Err(invalid_params(format!("too many parameters; {expected}")));
            }
            let mut list = list.into_iter();
            Ok(names.map(|name| Param { name, value: list.next().unwrap_or(Value::Null) }))
        }
        Value::Object(object) => {
            let mut object: Map<String, Value> = object;
            let params = names.map(|name| Param { name, value: object.remove(name).unwrap_or(Value::Null) });
            match object.keys().next() {
                Some(name) => Err(invalid_params(format!("no parameter {name:?}; {expected}"))),
                None => Ok(params),
            }
        }
        _ => Err(invalid_params("params must be an object or a list".to_owned())),
    }
}

fn invalid_params(message: String) -> Error {
    Error::new(INVALID_PARAMS, message)
}
