"""How-to tasks: (what is asked, three steps in order, a tip)."""

from __future__ import annotations

Howto = tuple[str, tuple[str, str, str], str]

QUESTIONS: tuple[str, ...] = (
    "How do I {task}?",
    "What are the steps to {task}?",
    "Explain in order how to {task}.",
    "I want to {task} for the first time. What do I do?",
    "Give me short steps to {task}.",
    "In what order should I go about it if I {task}?",
)

ANSWERS: tuple[str, ...] = (
    "First {0}, then {1}, and finally {2}.",
    "Start like this: {0}. After that {1}, and last of all {2}.",
    "Step one: {0}. Step two: {1}. Step three: {2}.",
    "You {0}, next you {1}, and in the end you {2}.",
)

TASKS: tuple[Howto, ...] = (
    (
        "boil an egg",
        ("bring water to the boil", "lower the egg in gently", "cool it under the tap"),
        "Eight minutes give a firm yolk.",
    ),
    (
        "make a cup of tea",
        ("boil the kettle", "pour the water over the bag", "take the bag out"),
        "Black tea needs about four minutes.",
    ),
    (
        "paint a wall",
        ("wash the wall", "tape the edges", "roll the paint on"),
        "A second coat evens the colour.",
    ),
    (
        "change a bicycle tube",
        ("take the wheel off", "swap the tube under the tyre", "pump it up"),
        "Check the tyre for thorns as well.",
    ),
    (
        "plant a tomato",
        ("dig a deep hole", "set the seedling in", "press the soil down and water it"),
        "Pick a sunny spot.",
    ),
    (
        "send a parcel",
        ("pack the box", "stick the label on", "hand it in at the post office"),
        "Keep the receipt for tracking.",
    ),
    (
        "bake a potato",
        ("scrub the potato", "prick it with a fork", "bake it for an hour"),
        "Salt on the skin makes it crisp.",
    ),
    (
        "sew on a button",
        ("thread the needle", "stitch through the holes", "tie off the thread"),
        "Choose thread of the same colour.",
    ),
    (
        "wash a car",
        ("rinse the dust off", "scrub it with soap", "dry it with a cloth"),
        "Shade prevents water stains.",
    ),
    (
        "plan a birthday party",
        ("choose a date", "send the invitations", "buy the cake the day before"),
        "Ask guests about allergies.",
    ),
    (
        "polish shoes",
        ("brush off the dirt", "rub in the polish", "buff them until they shine"),
        "Old newspaper protects the table.",
    ),
    (
        "cook rice",
        ("rinse the rice", "simmer it in water", "let it rest under the lid"),
        "Use two cups of water for one of rice.",
    ),
    (
        "hang a picture",
        ("mark the spot", "hammer in a nail", "hang the frame and level it"),
        "Eye height looks best.",
    ),
    (
        "make pancakes",
        ("whisk the batter", "heat butter in the pan", "fry each side until golden"),
        "Let the batter rest if you have time.",
    ),
    (
        "pitch a tent",
        ("lay out the groundsheet", "raise the poles", "peg the ropes down"),
        "Face the door away from the wind.",
    ),
    (
        "repot a plant",
        ("loosen the roots", "place it in the larger pot", "fill up with fresh soil"),
        "Spring is the best season.",
    ),
    (
        "do the laundry",
        ("sort the clothes by colour", "run the machine", "hang everything up to dry"),
        "Cold water saves power.",
    ),
    (
        "wrap a present",
        ("cut the paper to size", "fold it over the box", "tape the ends and add a bow"),
        "A little spare paper helps.",
    ),
    (
        "learn a poem by heart",
        ("read it aloud", "cover one line at a time", "recite the whole from memory"),
        "Repeat it the next morning.",
    ),
    (
        "light a campfire",
        ("clear the ground", "stack kindling over tinder", "light it from below"),
        "Keep a bucket of water near.",
    ),
    (
        "iron a shirt",
        ("heat the iron", "press the collar", "go over the sleeves and back"),
        "Damp cloth is easier to press.",
    ),
    (
        "make lemonade",
        ("squeeze the lemons", "stir in sugar", "top it up with cold water"),
        "Mint leaves taste nice in it.",
    ),
    (
        "open a bank account",
        ("compare a few banks", "bring your passport", "sign the forms at the desk"),
        "Ask about monthly fees.",
    ),
    (
        "borrow a library book",
        ("get a library card", "find the shelf", "check the book out at the desk"),
        "Most loans last three weeks.",
    ),
    (
        "brush a dog",
        ("calm the dog", "comb out the knots", "brush along the coat"),
        "Give a treat afterwards.",
    ),
    (
        "make a paper boat",
        ("fold the sheet in half", "fold the corners down", "pull the sides apart"),
        "Stiff paper floats longer.",
    ),
    (
        "clean a window",
        ("wipe off the dust", "spray the glass", "pull the water down with a squeegee"),
        "Cloudy days leave fewer streaks.",
    ),
    (
        "start a compost heap",
        ("pick a shady corner", "pile up leaves and peelings", "turn the heap each month"),
        "Leave out meat and oil.",
    ),
    (
        "write a job application",
        ("read the advert closely", "draft a letter", "have a friend check it"),
        "One page is enough.",
    ),
    (
        "assemble a bookshelf",
        ("lay out all the parts", "screw the frame together", "slide in the boards"),
        "Fix it to the wall for safety.",
    ),
    (
        "make a salad",
        ("wash the lettuce", "chop the vegetables", "toss it all with dressing"),
        "Add the dressing right before the meal.",
    ),
    (
        "defrost a freezer",
        ("unplug it", "let the ice melt into a tray", "dry the inside with a towel"),
        "A bowl of hot water speeds it up.",
    ),
    (
        "tune a guitar",
        ("switch on a tuner", "pluck one string at a time", "turn each peg to the note"),
        "New strings drift for a few days.",
    ),
    (
        "take a train to another city",
        ("look up the timetable", "buy a ticket", "board at the right platform"),
        "Early tickets cost less.",
    ),
)
