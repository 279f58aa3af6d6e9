"""SentencePiece models as T5's and DeBERTa-v3's hubs hold them, small: trained, not imitated."""

import io
import itertools
import string
from functools import cache
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tiny import TEXT

T5_LETTERS = {"▁A": 71, "▁B": 272}
_EXTRA = string.ascii_letters + string.digits + string.punctuation


@cache
def t5_pieces() -> bytes:
    """A `spiece.model` with T5's specials and normaliser, and A and B under T5's own ids."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(
        _trained(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", unk_piece="<unk>")
    )
    _place(proto, T5_LETTERS)
    return bytes(proto.SerializeToString())


@cache
def deberta_pieces() -> bytes:
    """An `spm.model` with DeBERTa-v3's specials."""
    return _trained(
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
    )


def _trained(**specials: Any) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines() * 4),
        model_writer=out,
        model_type="unigram",
        vocab_size=400,
        hard_vocab_limit=False,
        required_chars=_EXTRA,
        minloglevel=2,
        **specials,
    )
    return out.getvalue()


def _place(proto: Any, wanted: dict[str, int]) -> None:
    """Give pieces the ids wanted, in rising order of ids; unlikely pairs of letters fill up."""
    piece = sentencepiece_model_pb2.ModelProto.SentencePiece
    kept = [held for held in proto.pieces if held.piece not in wanted]
    known = {held.piece for held in kept}
    pairs = ("".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2))
    unlikely = (piece(piece=pair, score=-30.0) for pair in pairs if pair not in known)
    kept.extend(itertools.islice(unlikely, max(wanted.values())))
    for text, number in wanted.items():
        kept.insert(number, piece(piece=text, score=-4.0))
    del proto.pieces[:]
    proto.pieces.extend(kept)
