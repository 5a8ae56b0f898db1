"""Drop the boxes that a fusion has made one box of, so that a thing is not there twice."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from data_engine.schema import MEMBER

VERSION = 1


class FusedMembers:
    """Drops regions that went into a fused one (specialists.fusion:Fusion), each with what hangs on it.

    Its `where` must let it see the fusion's rows as well as the detectors': `kind: region` and no `source`.
    A box whose fused region an earlier filter dropped goes too: it had part in what was judged.
    """

    columns = ("annotation_id", "granularity", "text")

    def __call__(self, annotations: pa.Table) -> pa.BooleanArray:
        members = pc.fill_null(pc.equal(annotations["granularity"], MEMBER), False)
        used = annotations["text"].filter(members)
        return pc.invert(pc.is_in(annotations["annotation_id"], used.combine_chunks())).combine_chunks()
