"""Text and tokens: every string of bytes comes back, nothing in it is a special token, and every token is scored once."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from tokenizers import Tokenizer

from verossim.codecs.text import SPECIALS, Text, TextConfig
from verossim.codecs.text.vocabulary import trained
from verossim.codecs.text.windows import learned, scored
from verossim.spaces import Discrete, Records

few = settings(derandomize=True, max_examples=40, deadline=None)
WORDS = b"".join(b"%s %s the %s of \xc3\xa9t\xc3\xa9, 12%d!\n" % (a, b, a, n) for n, (a, b) in enumerate(
    [(b"question", b"answers"), (b"answer", b"questioned"), (b"\xe4\xbd\xa0\xe5\xa5\xbd", b"ol\xc3\xa1")] * 40))
SAMPLE = Records({"text": [WORDS]})


def codec(tokens="bytes", records=SAMPLE, **asked):
    return Text(TextConfig(tokens=tokens, **asked)).fit([records])


KINDS = {tokens: codec(tokens) for tokens in ("bytes", "bpe:400")}
both = pytest.mark.parametrize("text", KINDS.values(), ids=KINDS.keys())


def shown(text, entries):
    """Entries as a person reads them: bytes, names of special tokens, "~" before what is given."""
    names = {number: name for name, number in text.special.items()}
    return [("~" if t < 0 else "") + (names.get(k) or text.vocabulary.pieces[k].decode()) for t in map(int, entries)
            for k in [~t if t < 0 else t]]


# ---- tokens --------------------------------------------------------------------------------------------------------------


@both
@few
@given(some.one_of(some.binary(max_size=200), some.text(max_size=60).map(str.encode),
                   some.lists(some.sampled_from([b" the question", b"\xe4\xbd", b"\xff", b"\n", b"\xc3\xa9"])).map(b"".join)))
def test_every_string_of_bytes_comes_back(text, content):
    records = Records({"text": [content], "begins": [True], "ends": [True]})
    (tokens,) = text.tokens(text.parse(records, []))
    x = torch.from_numpy(tokens)[None]
    assert text.raw(x) == [content]
    assert text.decode(x).columns["text"] == [content.decode(errors="replace")]
    assert int(text.sizes(x)) == len(content) and int(text.units(x)) == len(tokens) - 1


def test_bytes_are_their_own_tokens_and_pairs_are_fewer():
    content = b" the question of ol\xc3\xa1"
    (single,), (pairs,) = (text.vocabulary.encode([content]) for text in KINDS.values())
    assert single.tolist() == list(content)
    assert len(pairs) <= len(content) // 2


@both
def test_a_text_says_no_special_token(text):
    forged = "".join(f"<|{name}|>" for name in SPECIALS) + "<|endoftext|><s></s>[PAD]\0"
    (tokens,) = text.tokens(text.parse(Records({"text": [forged]}), []))
    assert tokens[0] == ~text.space.start and tokens[-1] == text.space.stop
    assert tokens[1:-1].min() >= 0 and tokens[1:-1].max() < len(text.vocabulary)
    assert text.raw(torch.from_numpy(tokens)[None]) == [forged.encode()]


@both
def test_special_tokens_stand_after_the_ordinary_ones(text):
    size = len(text.vocabulary)
    assert list(text.special.values()) == list(range(size, size + len(SPECIALS)))
    assert text.space == Discrete(shape=(257,), vocabulary=size + 11, pad=size + 10, start=size, stop=size + 1)


@both
@few
@given(some.one_of(some.text(max_size=80), some.text(" \n\t\x1c\x85\xa0\u3000a1é.'s", max_size=40), some.lists(
    some.sampled_from([" ", "\n", " the", " question", "of", "\xa0", "'s", ", 12"])).map("".join)))
def test_the_tokenizer_json_gives_the_same_numbers(text, content):
    other, own = PUBLISHED[id(text)], text.vocabulary.encode([content.encode()])[0].tolist()
    assert other.encode(content, add_special_tokens=False).ids == own and other.encode(content).ids == [text.space.start, *own]
    assert other.decode(other.encode(content).ids) == content


PUBLISHED = {id(text): Tokenizer.from_str(text.tokenizer_json()) for text in KINDS.values()}


@both
def test_the_tokenizer_json_has_the_special_tokens(text):
    assert {name: PUBLISHED[id(text)].token_to_id(f"<|{name}|>") for name in SPECIALS[:-1]} == {
        name: number for name, number in text.special.items() if name != "pad"}  # of which the network knows nothing
    assert PUBLISHED[id(text)].get_vocab_size() == text.space.vocabulary - 1 == text.space.pad
    assert PUBLISHED[id(text)].encode("to be<|stop|>").ids[-1] == text.space.stop


@both
def test_a_codec_is_restored_from_its_state(text):
    again = Text.restore(text.config, json.loads(json.dumps(text.state())))
    assert again.space == text.space and again.stride == text.stride and again.tokenizer_json() == text.tokenizer_json()
    assert [a.tolist() for a in again.vocabulary.encode([WORDS])] == [a.tolist() for a in text.vocabulary.encode([WORDS])]


def test_the_same_text_gives_the_same_pairs():
    assert len({trained([WORDS[:3000], WORDS[3000:]], 400).pairs for _ in range(3)}) == 1


def test_what_is_remembered_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr("verossim.codecs.text.vocabulary.KNOWN", 2000)
    text = codec("bpe:400")
    for n in range(100):
        content = b"the question %d " % n + b"x" * n * 10
        assert text.raw(torch.from_numpy(text.vocabulary.encode([content])[0])[None]) == [content]
        assert sum(map(len, text.vocabulary.known)) <= 2000


def test_auto_takes_bytes_for_little_text_and_pairs_for_much():
    blocks = [Records({"text": [WORDS] * 64}) for _ in range(-(-(4 << 20) // (64 * len(WORDS))))]
    little, many = (Text(TextConfig()).fit(iter(some)) for some in (blocks[:-1], blocks))
    assert (len(little.vocabulary), little.stride) == (256, 64)
    assert len(many.vocabulary) > 256 and many.vocabulary.pairs
    assert len(many.vocabulary) <= 4096


def test_a_long_corpus_is_sampled_evenly(monkeypatch):
    monkeypatch.setattr("verossim.codecs.text.SAMPLE_BYTES", (10, 4000))
    seen = []
    monkeypatch.setattr("verossim.codecs.text.trained", lambda texts, size: seen.extend(texts) or trained(texts, size))
    Text(TextConfig(tokens="bpe:300")).fit(Records({"text": [b"%03d " % n * 5]}) for n in range(1000))
    numbers = [int(text[:3]) for text in seen]
    assert numbers == list(range(0, 1000, 8)) and sum(map(len, seen)) <= 3000


# ---- documents, pairs, chats ---------------------------------------------------------------------------------------------


def test_documents_and_their_stretches():
    text = KINDS["bytes"]
    records = Records({"text": [b"ab", b"cd", "é"], "begins": [True, False, False], "ends": [True, False, True]})
    whole, middle, last = text.tokens(text.parse(records, []))
    assert shown(text, whole) == ["~start", "a", "b", "stop"]
    assert shown(text, middle) == ["~c", "d"]
    assert last.tolist() == [~0xC3, 0xA9, text.space.stop]


def test_pairs():
    text = KINDS["bytes"]
    (tokens,) = text.tokens(text.parse(Records({"given": ["ab"], "text": ["c"]}), []))
    assert shown(text, tokens) == ["~start", "~a", "~b", "~then", "c", "stop"]
    (open_,) = text.tokens(text.parse(Records({"given": ["ab"]}), [], unknown=True))
    assert shown(text, open_) == ["~start", "~a", "~b", "~then"]


def test_chats():
    text = KINDS["bytes"]
    chat = [("system", b"s"), ("user", "u"), ("assistant", b"a")]
    (tokens,) = text.tokens(text.parse(Records({"messages": [chat]}), []))
    assert shown(text, tokens) == ["~start", "~system", "~s", "~end", "~user", "~u", "~end", "~assistant", "a", "end"]
    (begun,) = text.tokens(text.parse(Records({"messages": [chat]}), [], unknown=True))
    assert shown(text, begun) == shown(text, tokens)[:-1]
    (asked,) = text.tokens(text.parse(Records({"messages": [chat[:2]]}), [], unknown=True))
    assert shown(text, asked) == shown(text, tokens)[:-2]


def test_gaps():
    text = KINDS["bytes"]
    (tokens,) = text.tokens(text.parse(Records({"before": ["a"], "after": ["c"], "text": ["b"]}), []))
    assert shown(text, tokens) == ["~start", "~before", "~a", "~after", "~c", "~middle", "b", "stop"]
    (asked,) = text.tokens(text.parse(Records({"before": ["a"], "after": ["c"]}), [], unknown=True))
    assert shown(text, asked) == shown(text, tokens)[:-2]


def test_what_was_written_is_told_from_what_was_given():
    text = KINDS["bytes"]
    x = text.encode(text.parse(Records({"given": ["ab", ""], "text": [b"c\xff", "é"]}), []))
    assert x.dtype == torch.int32 and x.shape == (2, 257)
    assert text.raw(x) == [b"abc\xff", "é".encode()] and text.raw(x, given=False) == [b"c\xff", "é".encode()]
    assert text.decode(x, given=False).columns["text"] == ["c�", "é"]
    assert text.units(x).tolist() == [3, 3] and text.sizes(x).tolist() == [2, 2]


# ---- windows -------------------------------------------------------------------------------------------------------------

PAD = 10**6
sizes = some.tuples(some.integers(0, 90), some.integers(2, 20)).flatmap(
    lambda pair: some.tuples(some.just(pair[0]), some.just(pair[1]), some.integers(1, pair[1] - 1)))


@few
@given(sizes, some.booleans())
def test_every_token_is_scored_once_with_what_stands_before_it(size, begins):
    """Windows hold a sequence 0, 1, 2 ...; each entry is scored in one, where what stands before it precedes it."""
    N, length, stride = size
    tokens = np.arange(N, dtype=np.int32)
    tokens[:1] = ~tokens[:1] if begins else tokens[:1]
    windows = scored(tokens, length, stride, PAD)
    found = []
    for window in windows:
        plain = np.where(window < 0, ~window, window)
        inside = plain[plain != PAD]
        assert (np.diff(inside) == 1).all() and (plain[len(inside):] == PAD).all()
        new = window[(window >= 0) & (window != PAD)]
        found += new.tolist()
        for token in new:
            assert token - inside[0] >= min(token, length - stride)
    assert found == list(range(begins and N > 0, N))
    assert all(len(window) == length for window in windows) and len(windows) >= 1


@few
@given(sizes)
def test_every_token_is_learned_with_as_much_before_it_as_the_stride_allows(size):
    N, length, stride = size
    tokens = np.arange(N, dtype=np.int32)
    before = dict.fromkeys(range(N), -1)
    for window in learned(tokens, length, stride, PAD):
        plain = np.where(window < 0, ~window, window)
        inside = plain[plain != PAD]
        assert (np.diff(inside) == 1).all()
        assert (window[:len(inside)] < 0).tolist() == [bool(inside[0])] + [False] * (len(inside) - 1)
        for token in window[(window >= 0) & (window != PAD)].tolist():
            before[token] = max(before[token], token - inside[0])
    assert all(context >= min(token, length - stride) for token, context in before.items())


def test_windows_know_their_records():
    text = codec(context=8, stride=8)
    edges = {"begins": [True, False, True], "ends": [True, False, True]}
    records = text.parse(Records({"text": [b"a" * 30, b"", b"b"], **edges}), [])
    x, of = text.cut(records, learning=True)
    assert (x.shape, of.tolist()) == ((5, 9), [0, 0, 0, 0, 2])
    x, of = text.cut(records, learning=False)
    assert of.tolist() == [0] * 7 + [1, 2]
    assert np.bincount(of, text.units(x).numpy()).tolist() == [31, 0, 2]
    assert np.bincount(of, text.sizes(x).numpy()).tolist() == [30, 0, 1]
    x, of = text.cut(records, learning=False, stride=8)
    assert of.tolist() == [0] * 4 + [1, 2] and text.units(x).sum() == 33
    x, of = text.cut(records.take([]), learning=True)
    assert x.shape == (0, 9) and of.shape == (0,)


def test_a_condition_alone_is_no_window_to_learn():
    text = codec(context=8, stride=4)
    records = text.parse(Records({"given": [b"q" * 100], "text": [b"a"]}), [])
    x, _ = text.cut(records, learning=True)
    assert len(x) == 1 and shown(text, x[0])[-3:] == ["~then", "a", "stop"]


@both
def test_windows_with_a_gap_hold_the_same_text(text):
    gapped = Text.restore(TextConfig(tokens=text.config.tokens, context=64, gaps=0.5), text.state())
    plain = Text.restore(TextConfig(tokens=text.config.tokens, context=64), text.state())
    records = gapped.parse(Records({"text": [WORDS]}), [])
    x, of = gapped.cut(records, learning=True)
    reference, _ = plain.cut(records, learning=True)
    assert torch.equal(x, gapped.cut(records, learning=True)[0]) and len(x) == len(reference) == len(of)
    assert torch.equal(gapped.cut(records, learning=False)[0], plain.cut(records, learning=False)[0])
    parted = 0
    for window, whole in zip(x, reference, strict=True):
        if torch.equal(window, whole):
            continue
        parted += 1
        entries = window.tolist()
        start, before, after, middle = (entries.index(~gapped.special[name]) for name in ("start", "before", "after", "middle"))
        assert (start, before) == (0, 1) and before < after < middle
        stop = entries.index(gapped.space.stop)
        assert all(entry == gapped.space.pad for entry in entries[stop + 1:])
        runs = [gapped.raw(window[None, first:last])[0] for first, last in ((before, after), (middle, stop), (after, middle))]
        assert plain.raw(whole[None])[0].startswith(b"".join(runs)) and len(b"".join(runs)) >= 0.8 * plain.sizes(whole[None])
    assert 0.3 < parted / len(x) < 0.7
