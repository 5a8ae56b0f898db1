"""Drop texts by what their sentences are made of, as FLD-5B does (arXiv 2311.06242, section 4.2).

A parser has said what that is: `specialists.text_elements:TextElements`, in rows that hang on the texts.
A `where` for these filters lets both through: `kind: text`.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from data_engine.dataset import Dataset
from data_engine.errors import RecipeError, SpecialistError
from data_engine.recipe import Where
from data_engine.schema import ELEMENTS
from data_engine.where_sql import quoted, says

VERSION = 1

_COLUMNS = ("annotation_id", "granularity", "parent_id", "text")

_COUNTS = """
    SELECT parent_id, json_array_length(text, '$.objects') AS objects,
        json_array_length(text, '$.attributes') AS attributes, json_array_length(text, '$.actions') AS actions,
        (text ->> '$.object_complexity')::INT AS object_complexity,
        (text ->> '$.action_complexity')::INT AS action_complexity
    FROM elements
"""


class MostObjects:
    """Drops texts with more than `most` objects, as lists of words have.

    The paper drops "excessive objects" and gives no number. Its own more detailed texts have 28 objects on
    average (Table 3); 60 is about twice that. The value is the number of objects. A text that nobody has
    taken apart stays. Raises RecipeError, and SpecialistError where the whole data set has no such text.
    """

    columns = _COLUMNS

    def __init__(self, most: int = 60) -> None:
        if most < 1:
            raise RecipeError(f"most is {most}", "it must be at least 1")
        self.most = most

    def survey(self, dataset: Dataset, where: Where) -> str:
        return refuse_untaken(dataset, where)

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        return pc.fill_null(pc.less_equal(self.values(annotations), self.most), True)

    def values(self, annotations: pa.Table) -> pa.Array:
        return element_counts(annotations)["objects"]


class MinimumComplexity:
    """Drops texts in which no object (or no action) has enough edges in its sentence's tree.

    - `objects` and `actions`: the least largest degree; 0 asks for nothing. DiHT (arXiv 2301.02280) keeps a
      caption if some object has at least one relation, and if it has an action at all: with a degree
      that also counts an article, 2 and 1 ask for as much.
    - `attributes`: the least number of attributes.

    The value is the object's complexity. A text that nobody has taken apart stays. Raises as MostObjects.
    """

    columns = _COLUMNS

    def __init__(self, objects: int = 2, actions: int = 0, attributes: int = 0) -> None:
        if min(objects, actions, attributes) < 0:
            raise RecipeError("what is asked for cannot be negative", "write 0 to ask for nothing")
        self.objects = objects
        self.actions = actions
        self.attributes = attributes

    def survey(self, dataset: Dataset, where: Where) -> str:
        return refuse_untaken(dataset, where)

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        counts = element_counts(annotations)
        keep = pc.and_(
            pc.and_(
                pc.greater_equal(counts["object_complexity"], self.objects),
                pc.greater_equal(counts["action_complexity"], self.actions),
            ),
            pc.greater_equal(counts["attributes"], self.attributes),
        )
        return pc.fill_null(keep, True)

    def values(self, annotations: pa.Table) -> pa.Array:
        return element_counts(annotations)["object_complexity"]


def refuse_untaken(dataset: Dataset, where: Where) -> str:
    """Raises SpecialistError where no text of the whole data set was taken apart: one shard may have none."""
    if not says(dataset, where, f"granularity = {quoted(ELEMENTS)}"):
        raise SpecialistError(
            "no text was taken apart, so none can be judged by its parts",
            "run specialists.text_elements:TextElements over them, and let `where` see its rows (kind: text)",
        )
    return ""


def element_counts(annotations: pa.Table) -> dict[str, pa.Array]:
    """Of each row how many objects, attributes and actions it has, and its complexities; null where its
    text was not taken apart."""
    elements = annotations.filter(pc.fill_null(pc.equal(annotations["granularity"], ELEMENTS), False))
    with duckdb.connect() as connection:
        connection.register("elements", elements.select(["parent_id", "text"]))
        counts = connection.sql(_COUNTS).to_arrow_table()
    at = pc.index_in(annotations["annotation_id"], counts["parent_id"]).combine_chunks()
    return {
        name: pc.cast(counts[name].take(at), pa.float32()).combine_chunks()
        for name in counts.column_names
        if name != "parent_id"
    }
