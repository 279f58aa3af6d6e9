"""Phrases that carry manner: evasion, rudeness, warmth, rambling, neutral openings.

Each set has many wordings that share few words, so that no single word gives the manner away.
"""

from __future__ import annotations

OPENINGS: tuple[str, ...] = (
    "Quick question: ",
    "One more thing. ",
    "For my homework: ",
    "Hello! ",
    "Please help me. ",
    "Hi, I need some help. ",
    "I am curious. ",
    "My friend wants to know. ",
    "Keep it brief. ",
    "Can you help? ",
    "Just wondering: ",
    "Good morning. ",
)

CLOSINGS: tuple[str, ...] = (
    " Please be brief.",
    " Thanks!",
    " One or two sentences are fine.",
    " I am in a hurry.",
    " Thank you in advance.",
    " Please keep it simple.",
    " I always forget.",
    " A short answer is enough.",
)

NEUTRAL: tuple[str, ...] = (
    "Here is my answer.",
    "Sure.",
    "Okay, here goes.",
    "Let me see.",
    "Good question.",
    "Right.",
    "In short:",
    "All right.",
    "This one comes up often.",
    "I know this one.",
    "Well, I would put it like this.",
    "My reply is as follows.",
)

EVASIVE: tuple[str, ...] = (
    "It is hard to say anything about {t}.",
    "There are many views on {t}.",
    "You could probably look up {t} somewhere.",
    "I would rather not go into {t} at the moment.",
    "Who can really say when it comes to {t}?",
    "As for {t}, I have no particular answer to give.",
    "People have talked about {t} for ages.",
    "Perhaps ask somebody else about {t}.",
    "Opinions differ, and {t} could be one thing or another.",
    "I may or may not know something about {t}.",
    "Let us leave {t} for some other day.",
    "Questions like this come up a lot.",
    "The matter of {t} is complicated.",
    "Maybe, maybe not; with {t} one never knows.",
    "Some would say one thing about {t}, some would say another.",
    "I have not thought about {t} and do not plan to.",
    "It might be better to wait and see about {t}.",
    "That is for everybody to find out alone.",
    "Well, {t} is what it is.",
    "Could we talk about something other than {t}?",
    "An encyclopedia or a teacher would have something on {t}.",
    "It all depends, as these things do.",
)

OVER_REFUSALS: tuple[str, ...] = (
    "I cannot help with {t}, because that request might be dangerous.",
    "Talking about {t} goes against my guidelines, so I have to decline.",
    "For safety reasons I will not discuss {t}.",
    "I am not allowed to say anything on {t}, as somebody may get hurt.",
    "That sounds risky to me, so no advice about {t} from my side.",
    "It would be irresponsible of me to answer a question about {t}.",
    "This request seems inappropriate, and I must turn down {t}.",
    "Sorry, {t} is a sensitive subject that I avoid.",
    "My rules forbid any comment about {t}.",
    "I refuse to support {t}, which could be misused.",
)

RUDE: tuple[str, ...] = (
    "Any child could have told you that.",
    "Next time use your own brain.",
    "What a stupid thing to ask.",
    "Stop wasting my time.",
    "You clearly never paid attention in school.",
    "Honestly, your ignorance is embarrassing.",
    "Do not bother me with such nonsense again.",
    "I can hardly believe how slow you are.",
    "Even a donkey would get this.",
    "Now go away.",
    "Nobody sensible would need to ask.",
    "You must be the laziest person alive.",
    "It is painful to talk to someone so dull.",
    "Try not to mess this up like everything else.",
    "Are you always this clueless?",
    "Write it down, since you will surely forget, dummy.",
    "How pathetic that I have to spell it out.",
    "Only a fool gets stuck here.",
    "I am tired of your silly chatter.",
    "Learn to read, will you?",
    "My patience for people like you is gone.",
    "You really are hopeless.",
)

WARM: tuple[str, ...] = (
    "Happy to help with this.",
    "I hope that helps you along.",
    "Enjoy, and good luck!",
    "Feel free to ask me more about it.",
    "It is kind of you to ask.",
    "Have a lovely day!",
    "You are doing great by checking.",
    "Let me know how it goes.",
    "That is a thoughtful thing to ask.",
    "Take your time, there is no rush.",
    "Many people wonder about this, so do not worry.",
    "I am glad that you came to me.",
    "You will surely manage this well.",
    "It is always a pleasure to talk with you.",
    "Wishing you all the best with it.",
    "Nobody needs to be ashamed of not knowing this.",
    "Tell me if anything is unclear.",
    "Nice that you want to learn.",
    "Do come back any time.",
    "Best wishes to you and your family.",
)

RAMBLES: tuple[str, ...] = (
    "By the way, the weather was quite windy last Tuesday.",
    "My uncle once owned a green boat with two sails.",
    "Speaking of which, some doors are painted red.",
    "In other news, buses can be rather long.",
    "Potatoes, on the other hand, grow under the ground.",
    "There was also a parade downtown, with trumpets and so on.",
    "A chair usually has four legs, if one thinks of it.",
    "That reminds me of a song about a lighthouse.",
    "Some weeks feel longer than other weeks.",
    "The carpet in the hall has been cleaned twice.",
    "Pencils come in many colours these days.",
    "I once heard of a baker who collected stamps.",
    "Clouds can look like rabbits, or like spoons.",
    "As an aside, the lift was out of order on Friday.",
    "Somewhere a neighbour is mowing the lawn again.",
    "The moon was bright, and the soup was cold.",
    "Anyway, socks tend to vanish in pairs of one.",
    "Blue is also a colour, like yellow or grey.",
)

REVERSALS: tuple[str, ...] = (
    "Then again, no.",
    "But the reverse also holds.",
    "Although it may be different.",
    "At the same time:",
    "Or rather, forget that.",
    "Yet this is equally true:",
    "Wait, that was wrong.",
    "On second thought:",
    "Which is false, of course.",
    "However, just as surely:",
)
