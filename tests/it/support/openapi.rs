//! The description of the HTTP API, as the server returns it, and a validator for the part of JSON Schema that it uses.

use std::sync::OnceLock;

use http::Request;
use replyhook::App;
use serde_json::Value;

use super::app::{call_router, sources};

/// Token of the API in tests.
pub const API_TOKEN: &str = "0123456789abcdef-http-api-token-0123456789abcdef";

/// Keywords that the validator checks, or that constrain nothing.
const KEYWORDS: [&str; 18] = [
    "$ref",
    "type",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
    "enum",
    "const",
    "anyOf",
    "minLength",
    "maxLength",
    "minimum",
    "format",
    "description",
    "summary",
];

pub struct Description(Value);

impl Description {
    /// Returns the description that this build serves.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<Description> = OnceLock::new();
        CURRENT.get_or_init(|| {
            // On a thread of its own, since the test may be in a runtime, which cannot block on another one.
            let fetch = std::thread::spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    let env = [("REPLYHOOK__ADMIN__TOKEN", API_TOKEN)];
                    let app = App::builder().sources(sources(&env)).build().unwrap();
                    let request = Request::get("/v1/openapi.json")
                        .header("Authorization", format!("Bearer {API_TOKEN}"))
                        .body(axum::body::Body::empty())
                        .unwrap();
                    call_router(&app.admin_router(), request).await
                })
            });
            let response = fetch.join().unwrap();
            assert_eq!(response.status, 200, "{}", response.body);
            assert_eq!(response.header("content-type"), Some("application/json"));
            Self(serde_json::from_str(&response.body).unwrap())
        })
    }

    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Checks a response, and the request unless it was rejected.
    #[track_caller]
    pub fn check(
        &self,
        method: &str,
        path: &str,
        request: Option<&Value>,
        status: u16,
        response: &str,
    ) {
        let operation = self
            .operation(method, path)
            .unwrap_or_else(|| panic!("{method} {path} is not described"));
        if let Some(request) = request.filter(|_| status < 400 || status == 409) {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{method} {path} has no described body");
            // Unknown fields are ignored.
            self.expect_valid(schema, request, false);
        }
        let described = &operation["responses"][status.to_string()];
        assert!(
            described.is_object(),
            "{method} {path}: {status} is not described: {response}"
        );
        let described = self.resolve(described);
        let schema = &described["content"]["application/json"]["schema"];
        if schema.is_object() {
            let response: Value = serde_json::from_str(response).unwrap();
            self.expect_valid(schema, &response, true);
        } else {
            assert_eq!(
                response, "",
                "{method} {path}: {status} has no described body"
            );
        }
    }

    /// Checks the body of a request that the server makes to a service.
    #[track_caller]
    pub fn check_webhook(&self, name: &str, body: &Value) {
        let operation = &self.0["webhooks"][name]["post"];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "the webhook {name} is not described");
        self.expect_valid(schema, body, true);
    }

    /// Returns the problems of the description itself: unresolved references and unknown keywords.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_references(&self.0, &mut problems);
        for (name, schema) in self.0["components"]["schemas"].as_object().unwrap() {
            check_keywords(name, schema, &mut problems);
        }
        problems
    }

    fn check_references(&self, json: &Value, problems: &mut Vec<String>) {
        match json {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref")
                    && self.find(reference).is_none()
                {
                    problems.push(format!("{reference} does not exist"));
                }
                fields
                    .values()
                    .for_each(|value| self.check_references(value, problems));
            }
            Value::Array(items) => {
                for item in items {
                    self.check_references(item, problems);
                }
            }
            _ => {}
        }
    }

    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap();
        let paths = self.0["paths"].as_object().unwrap();
        let matches = |template: &str| {
            let (template, path): (Vec<_>, Vec<_>) =
                (template.split('/').collect(), path.split('/').collect());
            template.len() == path.len()
                && template
                    .iter()
                    .zip(&path)
                    .all(|(part, given)| part.starts_with('{') || part == given)
        };
        let (_, item) = paths.iter().find(|(template, _)| matches(template))?;
        item.get(method.to_ascii_lowercase())
    }

    fn find(&self, reference: &str) -> Option<&Value> {
        self.0.pointer(reference.strip_prefix('#')?)
    }

    fn resolve<'a>(&'a self, json: &'a Value) -> &'a Value {
        match json.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.find(reference).unwrap(),
            None => json,
        }
    }

    #[track_caller]
    fn expect_valid(&self, schema: &Value, value: &Value, is_closed: bool) {
        let mut problems = Vec::new();
        self.validate(schema, value, is_closed, "", &mut problems);
        assert!(problems.is_empty(), "{value:#}\n{}", problems.join("\n"));
    }

    /// Adds the differences between a value and a schema. With `is_closed`, fields that are not described are differences.
    fn validate(
        &self,
        schema: &Value,
        value: &Value,
        is_closed: bool,
        at: &str,
        problems: &mut Vec<String>,
    ) {
        let schema = self.resolve(schema);
        let mut fail = |text: String| problems.push(format!("{at}: {text}"));
        if let Some(kinds) = schema.get("type") {
            let kinds = match kinds {
                Value::Array(kinds) => kinds.clone(),
                kind => vec![kind.clone()],
            };
            if !kinds
                .iter()
                .any(|kind| is_of_kind(value, kind.as_str().unwrap()))
            {
                fail(format!("{value} is not of the type {kinds:?}"));
                return;
            }
        }
        if schema
            .get("const")
            .is_some_and(|expected| expected != value)
        {
            fail(format!("{value} is not {}", schema["const"]));
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            fail(format!("{value} is not one of {allowed:?}"));
        }
        if let Some(number) = schema.get("minimum").and_then(Value::as_f64)
            && value.as_f64().is_some_and(|value| value < number)
        {
            fail(format!("{value} is below {number}"));
        }
        if let Value::String(text) = value {
            let length = text.chars().count() as u64;
            let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
            if limit("minLength").is_some_and(|min| length < min)
                || limit("maxLength").is_some_and(|max| length > max)
            {
                fail(format!("the text has {length} characters"));
            }
            let is_valid = match schema.get("format").and_then(Value::as_str) {
                Some("date-time") => text.parse::<replyhook::Timestamp>().is_ok(),
                Some("uri") => text.contains("://"),
                None => true,
                Some(format) => panic!("{at}: unknown format {format}"),
            };
            if !is_valid {
                fail(format!("{text} has another format"));
            }
        }
        if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
            let fits = |option: &Value| {
                let mut problems = Vec::new();
                self.validate(option, value, is_closed, at, &mut problems);
                problems.is_empty()
            };
            if !options.iter().any(fits) {
                fail(format!("{value} fits none of the options"));
            }
        }
        match value {
            Value::Object(fields) => {
                for name in schema
                    .get("required")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    if !fields.contains_key(name.as_str().unwrap()) {
                        fail(format!("{name} is missing"));
                    }
                }
                let described = schema.get("properties").and_then(Value::as_object);
                for (name, value) in fields {
                    let at = format!("{at}/{name}");
                    let of_all = schema.get("additionalProperties");
                    match described
                        .and_then(|described| described.get(name))
                        .or(of_all)
                    {
                        Some(schema) => self.validate(schema, value, is_closed, &at, problems),
                        None if is_closed && described.is_some() => {
                            problems.push(format!("{at} is not described"));
                        }
                        None => {}
                    }
                }
            }
            Value::Array(items) => {
                let count = items.len() as u64;
                let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
                if limit("minItems").is_some_and(|min| count < min)
                    || limit("maxItems").is_some_and(|max| count > max)
                {
                    fail(format!("{count} items"));
                }
                let first = schema.get("prefixItems").and_then(Value::as_array);
                for (index, item) in items.iter().enumerate() {
                    let schema = first
                        .and_then(|first| first.get(index))
                        .or_else(|| schema.get("items"));
                    if let Some(schema) = schema {
                        self.validate(schema, item, is_closed, &format!("{at}/{index}"), problems);
                    }
                }
            }
            _ => {}
        }
    }
}

fn is_of_kind(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        other => panic!("unknown type {other}"),
    }
}

/// Adds the keywords of a schema that the validator would not check.
fn check_keywords(at: &str, schema: &Value, problems: &mut Vec<String>) {
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        if !KEYWORDS.contains(&keyword.as_str()) {
            problems.push(format!(
                "{at} has the keyword {keyword}, which no test checks"
            ));
        }
        match (keyword.as_str(), value) {
            ("properties", Value::Object(schemas)) => {
                for (name, schema) in schemas {
                    check_keywords(&format!("{at}.{name}"), schema, problems);
                }
            }
            ("anyOf" | "prefixItems", Value::Array(schemas)) => {
                for schema in schemas {
                    check_keywords(at, schema, problems);
                }
            }
            ("items" | "additionalProperties", schema) => check_keywords(at, schema, problems),
            _ => {}
        }
    }
}
