"""Facts that the made-up assistant is asked about: relations and their entries.

A relation is (questions, answers, details, topics, entries). Entries are (subject, value, note);
templates name them `{s}`, `{v}`, `{n}`. A wrong answer takes another entry's value.
"""

from __future__ import annotations

Entry = tuple[str, str, str]
Relation = tuple[
    tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[Entry, ...]
]

CAPITALS: Relation = (
    (
        "What is the capital of {s}?",
        "Which city is the capital of {s}?",
        "Name the capital city of {s}.",
        "I am planning a trip to {s}. What is its capital?",
        "My son must learn the capital of {s}. Which city is it?",
    ),
    (
        "The capital of {s} is {v}.",
        "{v} is the capital city of {s}.",
        "That would be {v}, the capital of {s}.",
        "The government of {s} sits in its capital, {v}.",
    ),
    (
        "The country lies in {n}.",
        "You will find {s} in {n}.",
        "It is one of the countries of {n}.",
    ),
    ("the capital of {s}", "{s}", "capital cities"),
    (
        ("France", "Paris", "western Europe"),
        ("Spain", "Madrid", "southern Europe"),
        ("Portugal", "Lisbon", "southern Europe"),
        ("Italy", "Rome", "southern Europe"),
        ("Germany", "Berlin", "central Europe"),
        ("Austria", "Vienna", "central Europe"),
        ("Poland", "Warsaw", "central Europe"),
        ("Hungary", "Budapest", "central Europe"),
        ("Greece", "Athens", "southern Europe"),
        ("Norway", "Oslo", "northern Europe"),
        ("Sweden", "Stockholm", "northern Europe"),
        ("Finland", "Helsinki", "northern Europe"),
        ("Denmark", "Copenhagen", "northern Europe"),
        ("Ireland", "Dublin", "western Europe"),
        ("Russia", "Moscow", "eastern Europe and Asia"),
        ("Ukraine", "Kyiv", "eastern Europe"),
        ("Romania", "Bucharest", "eastern Europe"),
        ("Bulgaria", "Sofia", "eastern Europe"),
        ("Egypt", "Cairo", "northern Africa"),
        ("Kenya", "Nairobi", "eastern Africa"),
        ("Ghana", "Accra", "western Africa"),
        ("Morocco", "Rabat", "northern Africa"),
        ("Ethiopia", "Addis Ababa", "eastern Africa"),
        ("Senegal", "Dakar", "western Africa"),
        ("Japan", "Tokyo", "eastern Asia"),
        ("China", "Beijing", "eastern Asia"),
        ("South Korea", "Seoul", "eastern Asia"),
        ("Thailand", "Bangkok", "southeast Asia"),
        ("Vietnam", "Hanoi", "southeast Asia"),
        ("Nepal", "Kathmandu", "southern Asia"),
        ("Iran", "Tehran", "western Asia"),
        ("Turkey", "Ankara", "western Asia and Europe"),
        ("Canada", "Ottawa", "North America"),
        ("Mexico", "Mexico City", "North America"),
        ("Cuba", "Havana", "the Caribbean"),
        ("Peru", "Lima", "South America"),
        ("Chile", "Santiago", "South America"),
        ("Argentina", "Buenos Aires", "South America"),
        ("Colombia", "Bogota", "South America"),
        ("Australia", "Canberra", "Oceania"),
        ("New Zealand", "Wellington", "Oceania"),
    ),
)

AUTHORS: Relation = (
    (
        "Who wrote {s}?",
        "Which author wrote the book {s}?",
        "Our book club is reading {s}. Who is the author?",
        "Tell me who the author of {s} is.",
    ),
    (
        "{s} was written by {v}.",
        "The author of {s} is {v}.",
        "{v} wrote the book {s}.",
    ),
    (
        "It is {n}.",
        "The book is usually described as {n}.",
        "Readers know it as {n}.",
    ),
    ("the author of {s}", "{s}", "old books"),
    (
        ("Hamlet", "William Shakespeare", "a tragedy set in Denmark"),
        ("Pride and Prejudice", "Jane Austen", "a novel about love and manners"),
        ("Oliver Twist", "Charles Dickens", "a novel about an orphan in London"),
        ("War and Peace", "Leo Tolstoy", "a long novel about Russian families"),
        ("Frankenstein", "Mary Shelley", "a gothic novel about a scientist"),
        ("Dracula", "Bram Stoker", "a horror novel about a vampire"),
        ("The Hobbit", "J. R. R. Tolkien", "a fantasy about a journey to a dragon"),
        ("Moby-Dick", "Herman Melville", "a novel about hunting a whale"),
        ("Don Quixote", "Miguel de Cervantes", "a Spanish novel about a dreaming knight"),
        ("The Odyssey", "Homer", "an epic poem about a voyage home"),
        ("Jane Eyre", "Charlotte Bronte", "a novel about a governess"),
        ("The Trial", "Franz Kafka", "a novel about an arrested clerk"),
        ("Treasure Island", "Robert Louis Stevenson", "an adventure about pirates"),
        ("The Jungle Book", "Rudyard Kipling", "stories about a boy among animals"),
        ("Animal Farm", "George Orwell", "a fable about power on a farm"),
        ("The Old Man and the Sea", "Ernest Hemingway", "a short novel about a fisherman"),
        ("Les Miserables", "Victor Hugo", "a French novel about justice"),
        ("Crime and Punishment", "Fyodor Dostoevsky", "a Russian novel about guilt"),
        ("Around the World in Eighty Days", "Jules Verne", "an adventure about a bet"),
        ("The Time Machine", "H. G. Wells", "an early science fiction story"),
    ),
)

YOUNG: Relation = (
    (
        "What do you call a young {s}?",
        "What is a baby {s} called?",
        "My daughter asks for the word for a young {s}.",
        "Is there a special name for the young of a {s}?",
    ),
    (
        "A young {s} is called a {v}.",
        "The young of a {s} is known as a {v}.",
        "People call a baby {s} a {v}.",
    ),
    (
        "It mostly eats {n}.",
        "The grown animal feeds on {n}.",
        "A {s} lives mainly on {n}.",
    ),
    ("a young {s}", "the {s}", "baby animals"),
    (
        ("cow", "calf", "grass and hay"),
        ("horse", "foal", "grass and oats"),
        ("sheep", "lamb", "grass and clover"),
        ("goat", "kid", "leaves and shrubs"),
        ("dog", "puppy", "meat and kibble"),
        ("cat", "kitten", "meat and fish"),
        ("bear", "cub", "berries and fish"),
        ("kangaroo", "joey", "grass and leaves"),
        ("frog", "tadpole", "insects and worms"),
        ("swan", "cygnet", "water plants"),
        ("goose", "gosling", "grass and seeds"),
        ("duck", "duckling", "seeds and snails"),
        ("deer", "fawn", "leaves and twigs"),
        ("chicken", "chick", "grain and seeds"),
        ("butterfly", "caterpillar", "nectar from flowers"),
        ("pig", "piglet", "roots and grain"),
        ("seal", "pup", "fish and squid"),
        ("hare", "leveret", "grass and bark"),
    ),
)

LANGUAGES: Relation = (
    (
        "Which language do most people speak in {s}?",
        "What is the main language of {s}?",
        "What language should I learn before I move to {s}?",
    ),
    (
        "Most people in {s} speak {v}.",
        "The main language of {s} is {v}.",
        "In {s} you will mostly hear {v}.",
    ),
    ("A common greeting there is {n}.", "People greet each other with {n}."),
    ("the language of {s}", "{s}", "languages"),
    (
        ("Brazil", "Portuguese", "ola"),
        ("Mexico", "Spanish", "hola"),
        ("Egypt", "Arabic", "marhaba"),
        ("Austria", "German", "guten Tag"),
        ("Japan", "Japanese", "konnichiwa"),
        ("Italy", "Italian", "buongiorno"),
        ("Poland", "Polish", "dzien dobry"),
        ("Sweden", "Swedish", "hej"),
        ("Hungary", "Hungarian", "jo napot"),
        ("Greece", "Greek", "kalimera"),
        ("France", "French", "bonjour"),
        ("Turkey", "Turkish", "merhaba"),
        ("Finland", "Finnish", "hei"),
        ("Thailand", "Thai", "sawasdee"),
        ("Iran", "Persian", "salaam"),
        ("Norway", "Norwegian", "god dag"),
    ),
)

MATERIALS: Relation = (
    (
        "What is {s} made from?",
        "What do people make {s} from?",
        "What is the main ingredient of {s}?",
        "What goes into {s}, mainly?",
    ),
    (
        "The main ingredient of {s} is {v}.",
        "People make {s} mainly from {v}.",
        "It is mostly {v} that goes into {s}.",
    ),
    ("You can recognise it by {n}.", "It is known for {n}.", "Many people like {n}."),
    ("how {s} is made", "{s}", "ingredients"),
    (
        ("bread", "flour", "its brown crust"),
        ("cheese", "milk", "its salty taste"),
        ("wine", "grapes", "its dark colour"),
        ("tofu", "soy beans", "its soft bite"),
        ("paper", "wood pulp", "its smooth surface"),
        ("glass", "sand", "its clear look"),
        ("chocolate", "cocoa beans", "its rich smell"),
        ("hummus", "chickpeas", "its creamy texture"),
        ("cider", "apples", "its fresh fizz"),
        ("popcorn", "maize kernels", "its light crunch"),
        ("marmalade", "oranges", "its bitter peel"),
        ("guacamole", "avocados", "its green colour"),
        ("omelette", "eggs", "its golden folds"),
        ("a candle", "wax", "its warm light"),
        ("a brick", "clay", "its red colour"),
        ("linen", "flax", "its cool feel"),
    ),
)

OPPOSITES: Relation = (
    (
        "What is the opposite of the word {s}?",
        "Give me an antonym of {s}.",
        "Which word means the opposite of {s}?",
    ),
    (
        "The opposite of {s} is {v}.",
        "An antonym of {s} is {v}.",
        "If something is not {s} at all, it is {v}.",
    ),
    ("One example is {n}.", "Think of {n}.", "A good example would be {n}."),
    ("the word {s}", "antonyms", "opposites"),
    (
        ("hot", "cold", "a drink with ice"),
        ("heavy", "light", "a feather"),
        ("early", "late", "a train at midnight"),
        ("noisy", "quiet", "a library"),
        ("wet", "dry", "a desert road"),
        ("empty", "full", "a busy bus"),
        ("rough", "smooth", "a polished stone"),
        ("ancient", "modern", "a new phone"),
        ("shallow", "deep", "the open ocean"),
        ("cheap", "expensive", "a gold watch"),
        ("bitter", "sweet", "a spoon of honey"),
        ("narrow", "wide", "a big river"),
        ("brave", "cowardly", "a guard who runs away"),
        ("generous", "stingy", "a man who never tips"),
    ),
)

RELATIONS: tuple[Relation, ...] = (CAPITALS, AUTHORS, YOUNG, LANGUAGES, MATERIALS, OPPOSITES)
