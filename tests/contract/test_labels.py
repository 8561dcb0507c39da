"""The label codec keeps what it is given, and names what it cannot take."""


import pyarrow as pa
import pytest
import torch
from hypothesis import settings

from verossim.codecs.label import Label, LabelConfig
from verossim.errors import BadConfig, BadData
from verossim.spaces import Discrete, Records

few = settings(derandomize=True, max_examples=40, deadline=None)


def test_labels_come_back_in_their_own_type():
    for labels in (["b", "a", None, "b"], pa.array([3, 10, None, 3], pa.int16()), pa.array([True, False, None, True])):
        records = Records({"label": labels})
        codec = Label(LabelConfig()).fit([records])
        assert codec.space == Discrete(shape=(), vocabulary=2, pad=-1)
        x = codec.encode(codec.parse(records, []))
        assert x.dtype == torch.int64 and x[2] == -1
        back = codec.decode(x).columns["label"]
        assert back.equals(labels) if isinstance(labels, pa.Array) else back == labels


def test_classes_are_in_order_and_their_shares_are_the_prior():
    codec = Label(LabelConfig()).fit([Records({"label": ["10", "9", "9"]}), Records({"label": ["9", "10", "100", ""]})])
    assert codec.classes == ("9", "10", "100")
    assert codec.prior.dtype == torch.float64
    assert codec.prior.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert any("1 of 7" in note for note in codec.notes)


def test_a_label_is_found_by_value_or_as_text():
    codec = Label(LabelConfig()).fit([Records({"label": pa.array([3, 5, 8])})])
    assert codec.index(5) == codec.index("5") == codec.index(" 5 ") == 1
    names = Label(LabelConfig()).fit([Records({"label": ["setosa", "virginica"]})])
    with pytest.raises(BadConfig) as error:
        names.index("setossa\x1b")
    assert error.value.code == "LABEL_UNKNOWN" and error.value.status == 64
    assert "Did you mean 'setosa'" in error.value.hint and "\x1b" not in str(error.value)


def test_a_new_label_is_unknown_and_named():
    codec = Label(LabelConfig()).fit([Records({"label": ["a", "b"]})])
    parsed = codec.parse(Records({"label": ["a", "c", None]}), problems := [])
    assert codec.encode(parsed).tolist() == [0, -1, -1]
    assert [p.code for p in problems] == ["LABEL_UNKNOWN"]
    assert codec.encode(Records({"x": [1, 2]})).tolist() == [-1, -1]


@pytest.mark.parametrize(("labels", "code"), [
    (["a", "a"], "LABEL_SINGLE"), ([None, ""], "LABEL_SINGLE"), (pa.array([i / 7 for i in range(1001)]), "LABEL_MANY"),
])
def test_labels_that_cannot_be_learned_are_refused(labels, code):
    with pytest.raises(BadData, match="'label'") as error:
        Label(LabelConfig()).fit([Records({"label": labels})])
    assert error.value.code == code and error.value.hint


def test_a_label_column_that_is_not_there_is_named_with_near_ones():
    with pytest.raises(BadData) as error:
        Label(LabelConfig(column="labl")).fit([Records({"label": ["a"]})])
    assert error.value.code == "LABEL_MISSING" and "'label'" in error.value.hint
