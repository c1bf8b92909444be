//! Types of payloads in the Python and npm packages, which are written from the description of the HTTP API.
//!
//! `REPLYHOOK_UPDATE_DOCS=1 cargo test --test it payload_types` writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use crate::manual::assert_up_to_date;
use crate::support::{Description, installed, read, report_skipped, root};

const NOTE: &str = "Generated from src/api/openapi.json: REPLYHOOK_UPDATE_DOCS=1 cargo test --test it payload_types";
const TYPESCRIPT: &str = "packaging/npm/payloads.d.ts";
const PYTHON: &str = "packaging/pypi/python/replyhook/payloads.py";

/// Returns the schemas by name: the components, and the body of each event, such as `MessageStatusEvent`.
fn schemas() -> BTreeMap<String, Value> {
    let description = Description::current().json();
    let components = description["components"]["schemas"].as_object().unwrap();
    let mut schemas: BTreeMap<_, _> = components.clone().into_iter().collect();
    for (name, item) in description["webhooks"].as_object().unwrap() {
        if let Some((subject, change)) = name.split_once('.') {
            let body = &item["post"]["requestBody"]["content"]["application/json"]["schema"];
            let name = format!("{}{}Event", capitalized(subject), capitalized(change));
            let mut body = body.clone();
            body["description"] = item["post"]["summary"].clone();
            schemas.insert(name, body);
        }
    }
    schemas
}

fn event_names(schemas: &BTreeMap<String, Value>) -> Vec<&str> {
    let is_event = |name: &&str| name.ends_with("Event");
    schemas
        .keys()
        .map(String::as_str)
        .filter(is_event)
        .collect()
}

fn capitalized(text: &str) -> String {
    text.split('_')
        .map(|word| word[..1].to_uppercase() + &word[1..])
        .collect()
}

/// The properties of an object schema in the order of their names, each with whether it is required.
// Sorted here: the order of a `serde_json` object depends on the features of other crates.
fn properties(schema: &Value) -> Vec<(&String, &Value, bool)> {
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|it| it == name));
    let properties: BTreeMap<_, _> = schema["properties"].as_object().unwrap().iter().collect();
    let properties = properties.into_iter();
    properties
        .map(|(name, schema)| (name, schema, is_required(name)))
        .collect()
}

fn referenced(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// The types that a schema names: of one with several, one schema for each.
fn alternatives(schema: &Value) -> Vec<Value> {
    if let Some(schemas) = schema["anyOf"].as_array() {
        return schemas.clone();
    }
    let Some(types) = schema["type"].as_array() else {
        return vec![schema.clone()];
    };
    let single = types.iter().map(|kind| {
        let mut schema = schema.clone();
        schema["type"] = kind.clone();
        schema
    });
    single.collect()
}

/// Returns the values of an enumeration or constant.
fn literals(schema: &Value) -> Option<Vec<&Value>> {
    let values = schema["enum"]
        .as_array()
        .map(|values| values.iter().collect());
    values.or_else(|| Some(vec![schema.get("const")?]))
}

fn comment(text: &Value, start: &str, end: &str) -> String {
    text.as_str()
        .map_or_else(String::new, |text| format!("{start}{text}{end}\n"))
}

fn typescript(schema: &Value, indent: &str) -> String {
    if let Some(name) = referenced(schema) {
        return name.to_owned();
    }
    if let Some(values) = literals(schema) {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        return values.join(" | ");
    }
    let alternatives = alternatives(schema);
    if let [_, _, ..] = &alternatives[..] {
        let types: Vec<_> = alternatives
            .iter()
            .map(|schema| typescript(schema, indent))
            .collect();
        return types.join(" | ");
    }
    let schema = &alternatives[0];
    match schema["type"].as_str() {
        Some("integer") => "number".to_owned(),
        Some("array") if schema["prefixItems"].is_array() => {
            let items = schema["prefixItems"].as_array().unwrap().iter();
            let items: Vec<_> = items.map(|item| typescript(item, indent)).collect();
            format!("[{}]", items.join(", "))
        }
        Some("array") => format!("Array<{}>", typescript(&schema["items"], indent)),
        Some("object") if schema["properties"].is_object() => {
            let inner = format!("{indent}  ");
            let mut text = "{\n".to_owned();
            for (name, property, is_required) in properties(schema) {
                text += &comment(&property["description"], &format!("{inner}/** "), " */");
                let mark = if is_required { "" } else { "?" };
                let kind = typescript(property, &inner);
                writeln!(text, "{inner}{name}{mark}: {kind};").unwrap();
            }
            text + indent + "}"
        }
        Some("object") => match &schema["additionalProperties"] {
            Value::Object(_) => {
                let values = typescript(&schema["additionalProperties"], indent);
                format!("Record<string, {values}>")
            }
            _ => "Record<string, unknown>".to_owned(),
        },
        Some(kind @ ("string" | "number" | "boolean" | "null")) => kind.to_owned(),
        other => panic!("no type for {other:?}: {schema}"),
    }
}

#[test]
fn typescript_types_are_those_of_the_description() {
    let schemas = schemas();
    let mut text = format!("// {NOTE}\n");
    for (name, schema) in &schemas {
        text += "\n";
        text += &comment(&schema["description"], "/** ", " */");
        let body = typescript(schema, "");
        if schema["properties"].is_object() {
            writeln!(text, "export interface {name} {body}").unwrap();
        } else {
            writeln!(text, "export type {name} = {body};").unwrap();
        }
    }
    text += "\n/** An event, to handler.events_url. Its `type` says which. */\n";
    let events = event_names(&schemas).join(" | ");
    writeln!(text, "export type ReplyhookEvent = {events};").unwrap();
    assert_up_to_date(TYPESCRIPT, &text);
}

/// Writes classes for a schema's objects to `text`, and returns the expression of its type.
fn python(schema: &Value, name: &str, text: &mut String) -> String {
    if let Some(name) = referenced(schema) {
        return format!("\"{name}\"");
    }
    if let Some(values) = literals(schema) {
        let values = values.iter().map(|value| match value {
            Value::Null => "None".to_owned(),
            value => value.to_string(),
        });
        return format!("Literal[{}]", values.collect::<Vec<_>>().join(", "));
    }
    let alternatives = alternatives(schema);
    if let [_, _, ..] = &alternatives[..] {
        let types: Vec<_> = alternatives
            .iter()
            .map(|schema| python(schema, name, text))
            .collect();
        return format!("Union[{}]", types.join(", "));
    }
    let schema = &alternatives[0];
    let kind = match schema["type"].as_str() {
        Some("string") => "str",
        Some("integer") => "int",
        Some("number") => "float",
        Some("boolean") => "bool",
        Some("null") => "None",
        Some("array") if schema["prefixItems"].is_array() => {
            let items = schema["prefixItems"].as_array().unwrap().iter();
            // JSON arrays are lists in Python.
            let items: Vec<_> = items.map(|item| python(item, name, text)).collect();
            return format!("List[{}]", items[0]);
        }
        Some("array") => return format!("List[{}]", python(&schema["items"], name, text)),
        Some("object") if schema["properties"].is_object() => {
            python_class(schema, name, text);
            return format!("\"{name}\"");
        }
        Some("object") => match &schema["additionalProperties"] {
            Value::Object(_) => {
                let values = python(&schema["additionalProperties"], name, text);
                return format!("Dict[str, {values}]");
            }
            _ => "Dict[str, Any]",
        },
        other => panic!("no type for {other:?}: {schema}"),
    };
    kind.to_owned()
}

/// Writes a `TypedDict`. Its fields are in two bases, since Python 3.9 marks no single field as optional, and in calls,
/// since `from` is a keyword.
fn python_class(schema: &Value, name: &str, text: &mut String) {
    let mut bases = Vec::new();
    for (base, total, group) in [("Required", "", true), ("Optional", ", total=False", false)] {
        let mut fields = String::new();
        for (field, property, is_required) in properties(schema) {
            if is_required == group {
                let kind = python(property, &format!("{name}{}", capitalized(field)), text);
                fields += &comment(&property["description"], "        # ", "");
                writeln!(fields, "        \"{field}\": {kind},").unwrap();
            }
        }
        if !fields.is_empty() {
            let base = format!("_{name}{base}");
            write!(
                text,
                "\n{base} = TypedDict(\n    \"{base}\",\n    {{\n{fields}    }}{total},\n)\n"
            )
            .unwrap();
            bases.push(base);
        }
    }
    let summary = schema["description"].as_str();
    let body = summary.map_or_else(|| "pass".to_owned(), |text| format!("\"\"\"{text}\"\"\""));
    write!(
        text,
        "\n\nclass {name}({}):\n    {body}\n\n",
        bases.join(", ")
    )
    .unwrap();
}

#[test]
fn python_types_are_those_of_the_description() {
    let schemas = schemas();
    let mut text = format!(
        "# {NOTE}\n\"\"\"Types of the payloads of forward requests, events and the HTTP API.\"\"\"\n\n\
         from typing import Any, Dict, List, Literal, TypedDict, Union\n"
    );
    for (name, schema) in &schemas {
        let kind = python(schema, name, &mut text);
        if !schema["properties"].is_object() {
            writeln!(text, "\n{name} = {kind}").unwrap();
        }
    }
    let events: Vec<_> = event_names(&schemas);
    let events = events.join(", ");
    write!(text, "\n# An event, to handler.events_url. Its `type` says which.\nReplyhookEvent = Union[{events}]\n").unwrap();
    let public = schemas.keys().map(|name| format!("    \"{name}\",\n"));
    let public: String = public.collect();
    write!(text, "\n__all__ = [\n{public}    \"ReplyhookEvent\",\n]\n").unwrap();
    assert_up_to_date(PYTHON, &text);
}

// A user can read a helper of this length before using it.
#[test]
fn helpers_have_at_most_80_lines() {
    for file in [
        "packaging/npm/bot.js",
        "packaging/npm/client.js",
        "packaging/npm/index.d.ts",
        "packaging/pypi/python/replyhook/bot.py",
        "packaging/pypi/python/replyhook/client.py",
    ] {
        let lines = read(file).lines().count();
        assert!(lines <= 80, "{file}: {lines} lines");
    }
}

/// Resolves every annotation, and prints the required and optional keys of each class.
const RESOLVE: &str = "
import json, typing
import replyhook
from replyhook import payloads
for name in payloads.__all__:
    found = getattr(replyhook, name)
    if isinstance(found, type):
        typing.get_type_hints(found)
        print(json.dumps([name, sorted(found.__required_keys__), sorted(found.__optional_keys__)]))
";

#[test]
fn python_resolves_types_with_their_keys() {
    let Some(python) = installed("REPLYHOOK_TEST_PYTHON") else {
        return report_skipped("the types of the Python package");
    };
    let output = Command::new(python)
        .args(["-c", RESOLVE])
        .env("PYTHONPATH", root().join("packaging/pypi/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    let text = String::from_utf8(output.stdout).unwrap();
    let found: BTreeMap<String, [Vec<String>; 2]> = text
        .lines()
        .map(|line| {
            let (name, required, optional) = serde_json::from_str(line).unwrap();
            (name, [required, optional])
        })
        .collect();
    for (name, schema) in schemas() {
        if schema["properties"].is_object() {
            let keys = |wanted: bool| -> Vec<String> {
                let properties = properties(&schema).into_iter();
                let properties = properties.filter(|(_, _, is_required)| *is_required == wanted);
                properties.map(|(key, _, _)| key.clone()).collect()
            };
            assert_eq!(found[&name], [keys(true), keys(false)], "{name}");
        }
    }
}
