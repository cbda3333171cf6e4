"""Keys of operators: known by their whole text, taken away at once, and told by the ledger."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import delete, insert, update

from palette.errors import AuthorisationError
from palette.gateway.auditing import audit, differences
from palette.gateway.operators import add_operator, known_operator, operators, remove_operator
from palette.gateway.tables import PROPERTIES


def test_a_key_is_known_by_its_whole_text_until_it_is_removed(operator):
    made, text = add_operator(operator, "Ann")
    other, _ = add_operator(operator, "Bob")
    assert {each.id for each in operators(operator.store)} == {made.id, other.id}
    assert known_operator(operator.store, text) == made
    for wrong in ("", text[:-1], text + "\n", text.upper(), text.replace(made.id, other.id), "pk" + text[2:]):
        assert known_operator(operator.store, wrong) is None
    assert operator.store.known(text) is None
    remove_operator(operator, made.id, "left the house")
    assert known_operator(operator.store, text) is None
    assert audit(operator.store)["holds"]
    with pytest.raises(AuthorisationError, match=r"must be in the store to be removed"):
        remove_operator(operator, made.id, "again")
    with pytest.raises(AuthorisationError, match="one line"):
        add_operator(operator, "two\nlines")


def test_the_text_of_a_key_stands_nowhere_in_the_store(operator):
    _, text = add_operator(operator, "Ann")
    assert text[-64:].encode() not in operator.store.database.path.read_bytes()
    with pytest.raises(AuthorisationError) as told:
        remove_operator(operator, text, "lost")
    assert text[-64:] not in str(told.value)


@pytest.mark.parametrize("change", ["name", "moved", "broken"])
def test_a_row_that_was_changed_is_nobodys(operator, change):
    made, text = add_operator(operator, "Ann")
    with operator.store.database.writing() as connection:
        row = PROPERTIES.c.name == f"operator {made.id}"
        said = json.loads(connection.exec_driver_sql("SELECT value FROM properties").scalars().all()[-1])
        if change == "moved":
            connection.execute(update(PROPERTIES).where(row).values(name="operator " + "0" * 16))
            text = text.replace(made.id, "0" * 16)
        else:
            value = "{" if change == "broken" else json.dumps({**said, "name": "Eve"})
            connection.execute(update(PROPERTIES).where(row).values(value=value))
    assert known_operator(operator.store, text) is None


def test_a_row_that_was_put_or_taken_by_hand_differs_from_the_ledger(operator):
    made, _ = add_operator(operator, "Ann")
    with operator.store.database.writing() as connection:
        connection.execute(delete(PROPERTIES).where(PROPERTIES.c.name == f"operator {made.id}"))
        connection.execute(insert(PROPERTIES), {"name": "operator " + "e" * 16, "value": "{}"})
    found = differences(operator.store)
    assert len(found) == 2
    assert f"operator's key {made.id} of entry" in found[0]
    assert "is in the store without an entry" in found[1]
