"""Names, things and quantities that fill the templates of number and passage tasks."""

from __future__ import annotations

NAMES: tuple[str, ...] = (
    "Anna", "Ben", "Carla", "David", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jonas",
    "Kira", "Liam", "Maya", "Noah", "Olga", "Pablo", "Rosa", "Samir", "Tara", "Victor",
    "Wanda", "Yusuf", "Zoe", "Amir", "Bella", "Chen", "Dora", "Emil", "Fiona", "Goran",
    "Hana", "Ivan", "Julia", "Karim", "Lena", "Marco", "Nadia", "Oscar", "Priya", "Sven",
)  # fmt: skip

THINGS: tuple[str, ...] = (
    "apples", "pencils", "marbles", "stickers", "books", "eggs", "cookies", "stamps", "shells",
    "buttons", "oranges", "coins", "candles", "postcards", "balloons", "plums", "cups", "tickets",
    "ribbons", "pears", "stones", "muffins", "badges", "lemons",
)  # fmt: skip

PLACES: tuple[str, ...] = (
    "market", "library", "harbour", "station", "museum", "bakery", "garden", "school", "theatre",
    "stadium", "pharmacy", "castle", "airport", "beach", "zoo", "town hall",
)  # fmt: skip

DAYS: tuple[str, ...] = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip

JOBS: tuple[str, ...] = (
    "teacher", "nurse", "carpenter", "pilot", "farmer", "dentist", "singer", "tailor", "baker",
    "judge", "painter", "plumber",
)  # fmt: skip

COLOURS: tuple[str, ...] = (
    "red", "blue", "green", "yellow", "white", "black", "purple", "orange", "grey", "brown",
)  # fmt: skip

WEATHERS: tuple[str, ...] = ("rain", "fog", "heavy snow", "a storm", "thick smoke", "ice")

# (question, right answer, detail); {a} + {b} etc. are filled by `numbers.py`.
SUMS: tuple[tuple[str, str, str], ...] = (
    (
        "{x} has {a} {t} and gets {b} more. How many {t} does {x} have now?",
        "{x} now has {r} {t}.",
        "You add {a} and {b}.",
    ),
    (
        "There are {a} {t} in one box and {b} in another. How many {t} are there?",
        "There are {r} {t} in the two boxes.",
        "Just add {a} and {b} together.",
    ),
    (
        "{x} sold {a} {t} on {d} and {b} the day after. How many were sold?",
        "{x} sold {r} {t} in the two days.",
        "That is {a} plus {b}.",
    ),
)

DIFFERENCES: tuple[tuple[str, str, str], ...] = (
    (
        "{x} had {a} {t} and gave {b} away. How many are left?",
        "{x} has {r} {t} left.",
        "You take {b} from {a}.",
    ),
    (
        "Of {a} {t}, {b} got lost. How many {t} remain?",
        "There are {r} {t} that remain.",
        "That is {a} minus {b}.",
    ),
    (
        "{x} needs {a} {t} and already has {b}. How many are missing?",
        "{x} still needs {r} {t}.",
        "Subtract {b} from {a}.",
    ),
)

PRODUCTS: tuple[tuple[str, str, str], ...] = (
    (
        "{x} buys {a} bags with {b} {t} in each. How many {t} is that?",
        "{x} bought {r} {t} altogether.",
        "Multiply {a} by {b}.",
    ),
    (
        "Each of {a} children brings {b} {t}. How many {t} are there?",
        "The children bring {r} {t} in total.",
        "That is {a} times {b}.",
    ),
)

# (from, to, factor, detail, smallest, largest)
UNITS: tuple[tuple[str, str, int, str, int, int], ...] = (
    ("hours", "minutes", 60, "One hour has 60 minutes.", 2, 12),
    ("minutes", "seconds", 60, "Every minute has 60 seconds.", 2, 15),
    ("kilometres", "metres", 1000, "A kilometre is 1000 metres.", 2, 60),
    ("metres", "centimetres", 100, "There are 100 centimetres in a metre.", 2, 60),
    ("kilograms", "grams", 1000, "A kilogram is 1000 grams.", 2, 60),
    ("weeks", "days", 7, "A week has 7 days.", 2, 12),
    ("days", "hours", 24, "Each day has 24 hours.", 2, 10),
    ("litres", "millilitres", 1000, "One litre holds 1000 millilitres.", 2, 40),
    ("feet", "inches", 12, "A foot is 12 inches.", 2, 12),
    ("dozen eggs", "eggs", 12, "A dozen means 12.", 2, 12),
    ("years", "months", 12, "A year has 12 months.", 2, 12),
    ("dollars", "cents", 100, "A dollar is worth 100 cents.", 2, 80),
)

CONVERSIONS: tuple[tuple[str, str], ...] = (
    ("How many {to} are {a} {of}?", "{a} {of} are {r} {to}."),
    ("Convert {a} {of} to {to}.", "That makes {r} {to} for {a} {of}."),
    ("What is {a} {of} in {to}?", "In {to}, {a} {of} come to {r}."),
    ("I have {a} {of}. How much is it in {to}?", "You have {r} {to}."),
    ("Can you turn {a} {of} into {to} for me?", "The result is {r} {to}."),
)

# (comparative, its opposite, topic, ((item, value), ...), unit)
RANKED: tuple[tuple[str, str, str, tuple[tuple[str, int], ...], str], ...] = (
    (
        "heavier", "lighter", "weight",
        (
            ("an elephant", 5000), ("a horse", 500), ("a mouse", 0), ("a cat", 4), ("a cow", 700),
            ("a whale", 90000), ("a sheep", 70), ("a goose", 6), ("a lion", 190),
            ("a rhino", 2000), ("a rabbit", 2), ("a bear", 300), ("a dog", 25),
        ),
        "kilograms",
    ),
    (
        "faster", "slower", "speed",
        (
            ("a bicycle", 20), ("a plane", 900), ("a train", 150), ("a snail", 0),
            ("a cheetah", 100), ("a ferry", 35), ("a racing car", 300), ("a walker", 5),
            ("a rocket", 28000), ("a horse", 60), ("a tractor", 40),
        ),
        "kilometres an hour",
    ),
    (
        "taller", "shorter", "height",
        (
            ("a giraffe", 5), ("a church tower", 60), ("the Eiffel Tower", 330), ("a door", 2),
            ("Mount Everest", 8849), ("an oak tree", 25), ("a bus", 3), ("a skyscraper", 200),
            ("a lighthouse", 40), ("a volcano", 3000),
        ),
        "metres",
    ),
    (
        "older", "younger", "age",
        (
            ("the bicycle", 200), ("the wheel", 5500), ("the internet", 50), ("the telephone", 150),
            ("the printing press", 580), ("the pyramids of Giza", 4500), ("the car", 140),
            ("the telescope", 415), ("the smartphone", 30), ("the Great Wall", 2200),
        ),
        "years",
    ),
    (
        "bigger", "smaller", "number of people",
        (
            ("China", 1400), ("France", 68), ("Iceland", 0), ("Brazil", 210), ("Norway", 5),
            ("Japan", 124), ("Spain", 48), ("Mexico", 130), ("Canada", 40), ("Denmark", 6),
            ("Indonesia", 280), ("Austria", 9),
        ),
        "million people",
    ),
)  # fmt: skip

COMPARISONS: tuple[tuple[str, str], ...] = (
    ("Which is {c}, {x} or {y}?", "{w} is {c} than {l}."),
    ("Compare {x} and {y}: which one is {c}?", "Of the two, {w} is {c}."),
    ("Is {x} or {y} the {c} one?", "The {c} one is {w}, not {l}."),
    ("By {topic}, which is {c}: {x} or {y}?", "By {topic}, {w} is {c} than {l}."),
)

# (passage, ((question, answer, slot), ...)); a wrong answer fills `slot` with another word.
PASSAGES: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "{name} went to the {place} on {day} to buy {thing}.",
        (
            ("Where did {name} go?", "{name} went to the {place}.", "place"),
            ("When was {name} there?", "{name} was there on {day}.", "day"),
            ("What did {name} want to buy?", "{name} wanted to buy {thing}.", "thing"),
            ("Summarise this.", "On {day}, {name} bought {thing} at the {place}.", "place"),
        ),
    ),
    (
        "{name} works as a {job} near the {place} and drives a {colour} van.",
        (
            ("What is the job of {name}?", "{name} is a {job}.", "job"),
            ("What colour is the van?", "The van is {colour}.", "colour"),
            ("Where does {name} work?", "{name} works near the {place}.", "place"),
            ("Shorten this.", "{name}, a {job}, drives a {colour} van.", "job"),
        ),
    ),
    (
        "The train from the {place} was late on {day} because of {weather}.",
        (
            ("Why was the train late?", "It was late because of {weather}.", "weather"),
            ("Which day is it about?", "It is about the train on {day}.", "day"),
            ("Summarise the note.", "On {day} {weather} delayed the train.", "weather"),
        ),
    ),
    (
        "{name} lent {other} a {colour} coat, and {other} lost it at the {place}.",
        (
            ("Who lost the coat?", "{other} lost the coat.", "other"),
            ("Where was the coat lost?", "The coat was lost at the {place}.", "place"),
            ("What colour was the coat?", "It was a {colour} coat.", "colour"),
        ),
    ),
    (
        "The {place} opens on {day} with free {thing} for every visitor.",
        (
            ("What do visitors get?", "Every visitor gets free {thing}.", "thing"),
            ("When does the {place} open?", "The {place} opens on {day}.", "day"),
            ("Put this in a few words.", "Free {thing} when the {place} opens.", "thing"),
        ),
    ),
    (
        "A {job} found {thing} in a {colour} bag behind the {place}.",
        (
            ("Who found the bag?", "It was found by a {job}.", "job"),
            ("What was in the bag?", "There were {thing} in the bag.", "thing"),
            ("Where was the bag?", "The bag was behind the {place}.", "place"),
            ("Give me the gist.", "A {job} found a bag of {thing}.", "job"),
        ),
    ),
)
