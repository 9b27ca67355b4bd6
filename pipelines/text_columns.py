"""Which columns of a table hold text, and as what types its rows can be taken apart."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the schema of a table's rows as they are looked at and copied."""
    plain = (own.with_type(_plain(own.type)) if any(map(VIEWS.get, _kinds(own.type))) else own for own in schema)
    return pa.schema([*plain], schema.metadata)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return a type without views of strings and bytes: pyarrow cannot take rows of these."""
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return kind  # its cast to a list gives broken ones (pyarrow 20 to 26)
    parts = [kind.field(part).with_type(_plain(kind.field(part).type)) for part in range(kind.num_fields)]
    if pa.types.is_struct(kind):
        return pa.struct(parts)
    if pa.types.is_map(kind):
        return pa.map_(*(parts[0].type.field(part) for part in range(2)), keys_sorted=kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(parts[0], kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(parts[0]) if pa.types.is_list(kind) else pa.large_list(parts[0])
    return VIEWS.get(kind, kind)


def text_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that hold strings, and nothing that cannot be written as JSON with them."""
    kinds = {own.name: [*_kinds(own.type)] for own in schema if not isinstance(own.type, pa.BaseExtensionType)}
    return [name for name, own in kinds.items() if any(map(_is_text, own)) and not any(map(_is_closed, own))]


def _kinds(kind: pa.DataType) -> Iterator[pa.DataType]:
    """Yield the types of the values in lists, structs and dictionaries."""
    if isinstance(kind, pa.BaseExtensionType):
        yield from _kinds(kind.storage_type)
    elif pa.types.is_dictionary(kind):
        yield from _kinds(kind.value_type)
    elif not kind.num_fields or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        yield kind
    else:
        for part in range(kind.num_fields):
            yield from _kinds(kind.field(part).type)


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _is_closed(kind: pa.DataType) -> bool:
    """Tell whether polars cannot write values of a type as JSON."""
    return bool(kind.num_fields) or "binary" in str(kind) or pa.types.is_decimal256(kind)
