//! Describes the JSON gateway as OpenAPI (Swagger 2.0) documents, from the descriptors and
//! `proto/http_rules.txt` (GW-28).
//!
//! Definitions have the names that etcd's documents have, so that clients generated from those fit.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};
use serde_json::{Map, Value, json};

/// A path behind `/v3/` and the call that it stands for.
pub(crate) type Rule<'a> = (&'a str, &'a str);

/// The rules of a text: a path and a call on each line, in order of the path.
///
/// # Errors
///
/// A line is no rule, or not in its place.
pub(crate) fn rules(text: &str) -> anyhow::Result<Vec<Rule<'_>>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rule = |line| str::split_once(line, ' ').with_context(|| format!("no rule: {line:?}"));
    let rules = lines.map(rule).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(rules.is_sorted(), "the rules are in order of the path");
    Ok(rules)
}

/// The rules as an array of Rust.
pub(crate) fn rust(rules: &[Rule<'_>]) -> String {
    let lines: String = rules.iter().map(|rule| format!("    {rule:?},\n")).collect();
    format!("[\n{lines}]\n")
}

/// The documents with their names: one of everything, and one for each package with services.
///
/// # Errors
///
/// A rule names no call.
pub(crate) fn documents(
    pool: &DescriptorPool,
    rules: &[Rule<'_>],
) -> anyhow::Result<Vec<(String, String)>> {
    let package = |call: &str| call.split('.').next().unwrap_or_default().to_owned();
    let mut documents = vec![("openapi.json".to_owned(), document(pool, "etcd", rules)?)];
    for (name, of) in
        [("rpc", "/etcdserverpb"), ("v3election", "/v3electionpb"), ("v3lock", "/v3lockpb")]
    {
        let its = rules.iter().filter(|(_, call)| package(call) == of);
        let its: Vec<_> = its.copied().collect();
        documents.push((format!("{name}.swagger.json"), document(pool, name, &its)?));
    }
    Ok(documents)
}

fn document(pool: &DescriptorPool, title: &str, rules: &[Rule<'_>]) -> anyhow::Result<String> {
    let (mut paths, mut tags) = (Map::new(), BTreeSet::new());
    let mut definitions = Definitions::default();
    for (path, call) in rules {
        let method = method(pool, call)?;
        tags.insert(method.parent_service().name().to_owned());
        // Further paths of one call are the longer ones.
        let shorter = rules.iter().filter(|(other, its)| its == call && other.len() < path.len());
        let post = operation(&method, 1 + shorter.count(), &mut definitions);
        paths.insert(format!("/v3/{path}"), json!({ "post": post }));
    }
    definitions.finish();
    let document = json!({
        "swagger": "2.0",
        "info": { "title": title, "version": "v3" },
        "tags": tags.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "paths": paths,
        "definitions": definitions.made,
        "securityDefinitions": {
            "ApiKey": { "type": "apiKey", "name": "Authorization", "in": "header" }
        },
        "security": [{ "ApiKey": [] }],
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn method(pool: &DescriptorPool, call: &str) -> anyhow::Result<MethodDescriptor> {
    let (service, name) = call.trim_start_matches('/').split_once('/').context("no call")?;
    let service = pool.get_service_by_name(service).with_context(|| format!("no {service}"))?;
    let mut methods = service.methods();
    methods.find(|method| method.name() == name).with_context(|| format!("no {call}"))
}

/// What `post` of a path does; `number` tells the paths of one call apart.
fn operation(method: &MethodDescriptor, number: usize, definitions: &mut Definitions) -> Value {
    let number = if number == 1 { String::new() } else { number.to_string() };
    let reply = definitions.message(&method.output());
    let answered = if method.is_server_streaming() {
        let title = format!("Stream result of {}", definition_name(method.output().full_name()));
        json!({
            "description": "A successful response.(streaming responses)",
            "schema": {
                "type": "object",
                "properties": { "result": reply, "error": { "$ref": "#/definitions/rpcStatus" } },
                "title": title,
            },
        })
    } else {
        json!({ "description": "A successful response.", "schema": reply })
    };
    let mut body = json!({
        "name": "body",
        "in": "body",
        "required": true,
        "schema": definitions.message(&method.input()),
    });
    if method.is_client_streaming() {
        body["description"] = json!(" (streaming inputs)");
    }
    let service = method.parent_service();
    json!({
        "operationId": format!("{}_{}{number}", service.name(), method.name()),
        "responses": {
            "200": answered,
            "default": {
                "description": "An unexpected error response.",
                "schema": { "$ref": "#/definitions/rpcStatus" },
            },
        },
        "parameters": [body],
        "tags": [service.name()],
    })
}

/// Package and message, or message and message within, as one word.
fn definition_name(full_name: &str) -> String {
    // The one that etcd's documents call by all its names.
    if full_name == "authpb.Permission.Type" {
        return "authpbPermissionType".to_owned();
    }
    let mut parts = full_name.rsplit('.');
    let name = parts.next().unwrap_or_default();
    parts.next().unwrap_or_default().to_owned() + name
}

/// What messages and enums look like, of those that were asked for.
#[derive(Debug, Default)]
struct Definitions {
    made: BTreeMap<String, Value>,
}

impl Definitions {
    fn finish(&mut self) {
        let status = json!({
            "type": "object",
            "properties": {
                "code": { "type": "integer", "format": "int32" },
                "message": { "type": "string" },
            },
        });
        self.made.insert("rpcStatus".to_owned(), status);
    }

    fn message(&mut self, message: &MessageDescriptor) -> Value {
        let name = definition_name(message.full_name());
        if !self.made.contains_key(&name) {
            // Messages hold messages of their own kind.
            self.made.insert(name.clone(), Value::Null);
            let mut properties = Map::new();
            for field in message.fields() {
                properties.insert(field.name().to_owned(), self.field(&field));
            }
            let mut made = json!({ "type": "object" });
            if !properties.is_empty() {
                made["properties"] = properties.into();
            }
            self.made.insert(name.clone(), made);
        }
        json!({ "$ref": format!("#/definitions/{name}") })
    }

    fn enumeration(&mut self, values: &EnumDescriptor) -> Value {
        let name = definition_name(values.full_name());
        let names: Vec<_> = values.values().map(|value| value.name().to_owned()).collect();
        let default = values.default_value().name().to_owned();
        let made = json!({ "type": "string", "enum": names, "default": default });
        self.made.insert(name.clone(), made);
        json!({ "$ref": format!("#/definitions/{name}") })
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        if let (true, Kind::Message(entry)) = (field.is_map(), field.kind()) {
            let value = self.kind(entry.map_entry_value_field().kind());
            return json!({ "type": "object", "additionalProperties": value });
        }
        let item = self.kind(field.kind());
        if field.is_list() { json!({ "type": "array", "items": item }) } else { item }
    }

    /// How protojson writes a value.
    fn kind(&mut self, kind: Kind) -> Value {
        let (written, format) = match kind {
            Kind::Message(message) => return self.message(&message),
            Kind::Enum(values) => return self.enumeration(&values),
            Kind::Bool => return json!({ "type": "boolean" }),
            Kind::String => return json!({ "type": "string" }),
            Kind::Bytes => ("string", "byte"),
            Kind::Double => ("number", "double"),
            Kind::Float => ("number", "float"),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => ("integer", "int32"),
            Kind::Uint32 | Kind::Fixed32 => ("integer", "int64"),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => ("string", "int64"),
            Kind::Uint64 | Kind::Fixed64 => ("string", "uint64"),
        };
        json!({ "type": written, "format": format })
    }
}
