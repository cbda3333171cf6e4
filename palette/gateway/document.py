"""What the OpenAPI document says of a request's body: its schema whole, and that a key is needed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

DEFINITIONS, REFERENCE = "$defs", "$ref"


def described(shape: type[BaseModel]) -> dict[str, Any]:
    """The part of a route's description that its body and its key are."""
    schema = shape.model_json_schema()
    schema = inlined(schema, schema.pop(DEFINITIONS, {}))
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "security": [{"key": []}],
    }


def inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema in which what others define stands where it is named: a route's has no place for them."""
    if isinstance(schema, list):
        return [inlined(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if REFERENCE in schema:
        return inlined(definitions[schema[REFERENCE].rpartition("/")[2]], definitions)
    return {name: inlined(value, definitions) for name, value in schema.items()}
