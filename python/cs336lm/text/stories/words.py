"""The people, animals, places and things of the stories: the tables that `plots` draws from.

In a table the words that are said when something is drawn must differ before either ends (no
*Sam* beside *Samira*), and all is ASCII, so that a character is a byte.
"""

from cs336lm.text.stories.grammar import Record, Table

_SHE = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
_HE = {"he": "he", "him": "him", "his": "his", "himself": "himself"}


def _table(fields: str, rows: str) -> Table:
    """A table from text: one row per line, its fields separated by bars and named by ``fields``.

    A field ``sex`` (she or he) brings its pronouns along; every record gets its article as ``a``.
    """
    names = fields.split()
    records = []
    for row in filter(None, map(str.strip, rows.splitlines())):
        words = dict(zip(names, map(str.strip, row.split("|")), strict=True))
        if sex := words.pop("sex", None):
            words |= _SHE if sex == "she" else _HE
        words["a"] = ("an " if words["name"][0] in "aeiou" else "a ") + words["name"]
        records.append(Record(words))
    return tuple(records)


def _people(sex: str, names: str) -> Table:
    return _table("name sex", "\n".join(f"{name} | {sex}" for name in names.split()))


def _list(rows: str) -> Table:
    return _table("name", rows)


_GIRLS = _people(
    "she", "Amira Clara Ella Freya Hanna Ivy Lily Lucy Maya Mia Nora Rosa Ruby Sara Yuki Zoe"
)
_BOYS = _people("he", "Ali Ben Emil Finn Hugo Jack Kofi Leo Max Noah Omar Oscar Otto Ravi Sam Tom")
NAMES = _GIRLS + _BOYS

_HOUSES = _list("""
    in a little house by the sea
    in a small house on a hill
    in a red house near the forest
    in a quiet village
    on a farm with many animals
    in a tall house in the town
""")

GIRL: Table = (Record({"name": "girl"}, {"names": _GIRLS, "homes": _HOUSES}),)
BOY: Table = (Record({"name": "boy"}, {"names": _BOYS, "homes": _HOUSES}),)


def _beast(name: str, *homes: str) -> Record:
    return Record({"name": name}, {"names": NAMES, "homes": _list("\n".join(homes))})


BEASTS: Table = (
    _beast("rabbit", "in a warm burrow under a hedge", "in a soft nest in the tall grass"),
    _beast("fox", "in a den under an old oak tree", "in a cosy den behind the hill"),
    _beast("bear", "in a cave near a waterfall", "in a snug cave on a mountain"),
    _beast("mouse", "in a hole behind the kitchen wall", "in a nest made of straw"),
    _beast("duck", "in the reeds by a pond", "on a small island in a lake"),
    _beast("squirrel", "at the top of a pine tree", "in a hollow tree in the park"),
    _beast("puppy", "in a kennel on a farm", "in a basket by the fire"),
    _beast("elephant", "by a wide river", "under the shady trees"),
)

ELDERS = _table(
    "name sex",
    """
    Mom | she
    Dad | he
    Grandma | she
    Grandpa | he
    Aunt May | she
    Uncle Joe | he
""",
)

# Animals that come by and help; `can` is what they are good at.
HELPERS = _table(
    "name sex can",
    """
    owl | she | My eyes are sharp, even in the dark
    crow | he | I see far from up in the sky
    dog | he | My nose can find anything
    mole | he | Nobody digs as well as I do
    goat | she | I climb where nobody else dares
    turtle | she | I am slow, but I never give up
    cat | she | I slip into the smallest places
    hedgehog | he | I know every leaf around here
    goose | she | My neck is long, and I see a lot
    donkey | he | I am strong and I have time
    otter | she | I am good at finding things
    badger | he | I have lived here all my life
    stork | she | My legs are long, and no water is too deep
    toad | he | I hear every little sound
    pigeon | she | I know all the roads and roofs
    hare | he | Nobody runs as fast as I do
""",
)

# Small animals that get into trouble.
CREATURES = _list("""
    ladybug
    butterfly
    snail
    bumblebee
    beetle
    ant
    cricket
    caterpillar
    dragonfly
    firefly
    grasshopper
    moth
""")

# Where a small animal is stuck, what is done about it, and with what.
TRAPS = _table(
    "name freed with",
    """
    caught in a spider web | pulled the sticky threads away | a twig
    stuck in a deep hole | made a little bridge out of the hole | a long branch
    trapped under a heavy stone | lifted the stone | a strong stick
    sitting on a leaf in the middle of a puddle | drew the leaf to the edge | a rake
    locked in a glass jar | opened the lid of the jar | a spoon
    tangled in an old net | cut the knots one by one | a sharp shell
    stuck in the thick mud | made a dry path over the mud | some flat boards
    hanging on a thorn bush | bent the thorns to the side | a thick glove
""",
)


def _place(name: str, where: str, *spots: str) -> Record:
    return Record({"name": name, "where": where}, {"spots": _list("\n".join(spots))})


# `where` is how one is there; the spots are where a thing may lie there.
PLACES: Table = (
    _place(
        "the park", "in the park", "under a green bench", "behind the fountain", "next to the slide"
    ),
    _place(
        "the forest",
        "in the forest",
        "under a pile of leaves",
        "behind a mossy log",
        "between two big roots",
    ),
    _place(
        "the beach", "at the beach", "behind a sandy rock", "in a tide pool", "under an old boat"
    ),
    _place(
        "the farm", "on the farm", "in the hay", "behind the red tractor", "next to the milk cans"
    ),
    _place(
        "the river",
        "by the river",
        "in the reeds",
        "under the wooden bridge",
        "between two wet stones",
    ),
    _place(
        "the garden",
        "in the garden",
        "under the rose bush",
        "behind the watering can",
        "among the carrots",
    ),
    _place(
        "the market",
        "at the market",
        "in a basket of apples",
        "under the bread stall",
        "behind a barrel of fish",
    ),
    _place(
        "the meadow",
        "in the meadow",
        "among the daisies",
        "in the tall grass",
        "next to a rabbit hole",
    ),
    _place(
        "the lake",
        "at the lake",
        "on the wooden dock",
        "under a willow tree",
        "behind the fishing nets",
    ),
    _place(
        "the hill", "on the hill", "behind the old mill", "in a thorny bush", "under a flat stone"
    ),
)

COLOURS = _list("red\nblue\ngreen\nyellow\npurple\nwhite\nsilver\npink\ngolden\nbrown")

# Things that are loved, lost and found; `used` is what one does with them all day.
TOYS = _table(
    "name used",
    """
    ball | bounced it up and down
    kite | let it fly in the wind
    scarf | wore it around the neck
    drum | played a song on it
    boat | let it float in the water
    bell | rang it again and again
    lantern | carried it from room to room
    book | looked at its pictures
    button | turned it in the light
    top | made it spin on the floor
    whistle | blew it as loud as could be
    blanket | slept under it
    mirror | made it catch the sun
    cup | drank warm milk from it
    puppet | taught it to bow
    hat | put it on and danced
""",
)

# Things one can learn: how it goes wrong, what to do about it, how it ends.
SKILLS = _table(
    "name fail tip done",
    """
    swim | went under and swallowed water | Kick your legs and breathe slowly
        | swam all the way across the pond
    whistle | only blew air | Make your lips small and round | whistled a long and merry song
    ride a bike | fell into a bush | Look far ahead and keep your feet moving
        | rode all the way down the street
    skate | slipped and sat down on the ice | Bend your knees a little
        | skated three circles around the pond
    climb trees | slid down the trunk | Hold on with both arms and do not look down
        | sat on the highest branch and waved
    bake bread | burned it until it was black | Wait for the smell and then count to ten
        | baked a loaf that was golden and soft
    paint | mixed all the colors to brown | Use only a little paint and wash the brush
        | painted a bright picture of the sea
    juggle | dropped the balls on the floor | Start with one ball and do not hurry
        | kept four balls in the air
    dance | stepped on many toes | Listen to the drum and count to three
        | danced until the stars came out
    tie a knot | got all tangled up in the rope | Make a loop and go around the tree
        | tied a knot that held a boat in the storm
""".replace("\n        |", " |"),
)

# What one can be afraid of at night; what it is heard to do, and what it was in truth.
NOISES = _table(
    "name truth",
    """
    scratched at the window | branch of the apple tree, moving in the wind
    bumped around under the bed | round hedgehog, looking for a warm place
    howled behind the door | cold wind, singing through the keyhole
    tapped on the roof | hungry woodpecker, looking for its supper
    rustled in the closet | small mouse, making a nest in a sock
    splashed in the kitchen | drop of water, falling into a bowl
    croaked outside in the dark | fat toad, calling to its friends
    rattled in the attic | loose shutter, swinging to and fro
    dripped in the hall | wet umbrella, hanging on a hook
    snored under the stairs | sleepy dog, having a good dream
""",
)

# What can be built, what breaks it, and how to build it better.
BUILDINGS = _table(
    "name from breaks better",
    """
    sand castle | wet sand and shells | a big wave washed it away | farther from the water
    tower | wooden blocks | the cat jumped right into it | with a wider base
    tree house | boards and nails | the wind blew its roof off | with a stronger roof
    snowman | fresh white snow | the warm sun melted its head | in the shade
    raft | logs and rope | it broke in two on a rock | with thicker ropes
    bird house | thin pieces of wood | it fell down from its branch | with a strong hook
    tent | sticks and a bed sheet | the rain came through the top | under the big oak
    castle | cardboard boxes | a gust of wind blew it over | with stones inside
    den | leaves and branches | the heavy rain made it fall in | with a steep roof
    dam | mud and stones | the stream pushed it over | with heavier stones
""",
)

# Food that is good to share.
TREATS = _table(
    "name it",
    """
    a warm apple pie | the pie
    three sweet pears | the pears
    a bag of nuts | the nuts
    a big cheese sandwich | the sandwich
    a basket of berries | the berries
    two honey cakes | the cakes
    a pot of soup | the soup
    some fresh cookies | the cookies
    a loaf of bread | the bread
    a slice of plum cake | the cake
""",
)

# What one gets for sharing.
GIFTS = _table(
    "name it",
    """
    a smooth white pebble | the pebble
    a long blue feather | the feather
    a tiny golden key | the key
    a shell that sounded like the sea | the shell
    a crown of flowers | the crown
    a lucky brass coin | the coin
    a flute made of wood | the flute
    a map of a secret path | the map
    an acorn with a funny hat | the acorn
    a ring made of grass | the ring
""",
)

# Seeds: what grows from them, and what is made of it.
SEEDS = _table(
    "name made",
    """
    pumpkin | pumpkin soup
    sunflower | a crown of yellow petals
    strawberry | strawberry jam
    carrot | carrot cake
    tomato | a big red salad
    bean | a pot of bean stew
    melon | cool melon juice
    radish | radish bread with butter
    cucumber | a hundred sandwiches
    pepper | a hot pepper pie
""",
)

# What two want at once.
PRIZES = _list("""
    swing
    rocking horse
    wagon
    jump rope
    trumpet
    paint box
    sled
    tricycle
    hammock
    beach ball
""")

# Strangers who have lost their way: their sound, what they look for in their words and in ours.
STRANGERS = _table(
    "name sound wants goal",
    """
    lamb | baa, baa | my mother | its mother
    duckling | peep, peep | my brothers | its brothers
    calf | moo, moo | my herd | its herd
    pony | neigh, neigh | the stable | the stable
    piglet | oink, oink | my family | its family
    donkey foal | hee-haw | the barn | the barn
    baby seal | honk, honk | the sea | the sea
    parrot | hello, hello | my nest | its nest
""",
)

TABLES: dict[str, Table] = {
    "beasts": BEASTS,
    "boy": BOY,
    "buildings": BUILDINGS,
    "colours": COLOURS,
    "creatures": CREATURES,
    "elders": ELDERS,
    "gifts": GIFTS,
    "girl": GIRL,
    "helpers": HELPERS,
    "names": NAMES,
    "noises": NOISES,
    "places": PLACES,
    "prizes": PRIZES,
    "seeds": SEEDS,
    "skills": SKILLS,
    "strangers": STRANGERS,
    "toys": TOYS,
    "traps": TRAPS,
    "treats": TREATS,
}
