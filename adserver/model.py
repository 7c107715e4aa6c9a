"""The vocabulary: slots, creatives, line items and the outcomes of a decision, as frozen structs.

Everything here is a value. Instants inside the model are Unix seconds (float, UTC), because the decision
compares them a hundred thousand times a second; configuration files and people see ISO instants with an offset.
"""

from enum import Enum
from typing import NewType

from msgspec import Struct

SlotId = NewType("SlotId", int)

Size = tuple[int, int]

DEVICES = ("desktop", "mobile", "tablet")
"""What a page may be read on."""


class Priority(Enum):
    """The order in which bookings are tried; a lower one is asked only when no higher one answers."""

    SPONSORSHIP = "sponsorship"
    STANDARD = "standard"
    BULK = "bulk"
    HOUSE = "house"


class WhenEmpty(Enum):
    """What a page gets from a slot that nothing fills."""

    COLLAPSE = "collapse"
    KEEP = "keep"
    PASSBACK = "passback"


class Counts(Enum):
    """Which counter a slot's bookings are billed by."""

    IMPRESSION = "impression"
    VIEWABLE = "viewable"
    SERVED = "served"


class Rotation(Enum):
    """How a line item chooses among its creatives."""

    EVEN = "even"
    WEIGHTED = "weighted"
    SEQUENCE = "sequence"
    OPTIMISED = "optimised"


class Measure(Enum):
    """What a goal is counted in."""

    IMPRESSIONS = "impressions"
    VIEWABLES = "viewables"
    CLICKS = "clicks"


class Pacing(Enum):
    """How a goal is spread over its time: with the traffic, with its first half a little ahead, or at once."""

    EVEN = "even"
    FRONTLOADED = "frontloaded"
    ASAP = "asap"


class OnShortfall(Enum):
    """What happens when a flight ends below its goal: nothing more, or it goes on until the goal is reached."""

    STOP = "stop"
    RUN_ON = "run_on"


class PageRule(Enum):
    """How many of its slots a line item takes on one page: one, as many as it can, or all of them together or none."""

    ONE = "one"
    ROADBLOCK_ANY = "roadblock_any"
    ROADBLOCK_ALL = "roadblock_all"


class Kind(Enum):
    """What a creative is made of."""

    IMAGE = "image"
    TEXT = "text"
    NATIVE = "native"
    HTML = "html"
    TAG = "tag"


class Format(Enum):
    """What a snippet is embedded in."""

    HTML = "html"
    PLACEHOLDER = "placeholder"
    EMAIL = "email"
    AMP = "amp"
    NATIVE = "native"


class Site(Struct, frozen=True, kw_only=True):
    """The newsroom: its name and clock, where a lost link leads a reader, and whether third-party tags may run."""

    name: str = "News"
    time_zone: str = "UTC"
    home_url: str | None = None
    tags: bool = False
    sample: bool = False


class Slot(Struct, frozen=True, kw_only=True):
    """A place on a page that can show an ad."""

    id: SlotId
    name: str
    sizes: tuple[Size, ...]
    label: str = "Advertisement"
    when_empty: WhenEmpty = WhenEmpty.COLLAPSE
    passback: str | None = None
    counts: Counts = Counts.IMPRESSION
    lazy: bool = True
    refresh_s: int | None = None


class Member(Struct, frozen=True, kw_only=True):
    """A slot's part in a group."""

    slot: SlotId
    weight: float = 1.0


class Group(Struct, frozen=True, kw_only=True):
    """`[the_ad_group]`: a weighted set of slots, one of which answers."""

    id: str
    name: str
    slots: tuple[Member, ...]


class Placement(Struct, frozen=True, kw_only=True):
    """`[the_ad_placement]`: a name for a slot or for a group."""

    id: str
    name: str
    slot: SlotId | None = None
    group: str | None = None


class Cap(Struct, frozen=True):
    """How often at most one reader is shown it: *most* times in *within_s* seconds."""

    most: int
    within_s: int


class Goal(Struct, frozen=True):
    """So many *of* a measure, over the flight or on each day of it (*daily*)."""

    n: int
    of: Measure
    daily: bool = False


class Advertiser(Struct, frozen=True, kw_only=True):
    """Who buys. *categories* are what no two line items on one page share; *several* asks to be on a page with more
    than one line item.
    """

    id: str
    name: str
    categories: tuple[str, ...] = ()
    several: bool = False
    frequency: tuple[Cap, ...] = ()
    contact: str | None = None
    count_level: int = 2
    """What an event must survive before it is acknowledged: 2, this machine's power; 3, its loss with the disk."""


class Campaign(Struct, frozen=True, kw_only=True):
    """Why they buy."""

    id: str
    name: str
    advertiser: str
    frequency: tuple[Cap, ...] = ()


class Political(Struct, frozen=True, kw_only=True):
    """What Regulation (EU) 2024/900, articles 11 and 12, wants said beside a political advertisement."""

    sponsor: str
    controlled_by: str
    paid_by: str
    election: str
    targeted: bool
    notice_url: str


class Creative(Struct, frozen=True, kw_only=True):
    """What is shown. Which fields are set depends on *kind*; the catalog has checked it.

    *image* is the asset's name, *image_size* its pixels and *still*, where it moves, the name of one frame of it; all
    are found when the file is read.
    """

    id: str
    advertiser: str
    kind: Kind
    click_url: str | None = None
    size: Size | None = None
    image: str | None = None
    image_size: Size | None = None
    still: str | None = None
    alt: str = ""
    title: str = ""
    text: str = ""
    sponsor: str = ""
    html: str = ""
    weight: float = 1.0
    political: Political | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of its assets."""
        return tuple(name for name in (self.image, self.still) if name)


class Terms(Struct, frozen=True, kw_only=True):
    """Values of what is known of a page, by kind. *url* holds beginnings of addresses, *keys* are the site's own."""

    section: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    url: tuple[str, ...] = ()
    lang: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    keys: dict[str, tuple[str, ...]] = {}


class Targeting(Struct, frozen=True, kw_only=True):
    """Which pages a line item is for: those with any of these, all of these, none of these; *prefer* excludes none."""

    any: Terms | None = None
    all: Terms | None = None
    none: Terms | None = None
    prefer: Terms | None = None


class LineItem(Struct, frozen=True, kw_only=True):
    """One booking: slots, dates, priority, creatives. *starts* and *ends* bound its flight; None is open.

    *hours* are windows of the week as `hours.parse_window` reads them; none is always. With *on_shortfall* `run_on` it
    goes on after *ends* until its goal is reached.
    """

    id: str
    name: str
    campaign: str
    priority: Priority
    slots: tuple[SlotId, ...]
    creatives: tuple[str, ...]
    starts: float | None = None
    ends: float | None = None
    share: float | None = None
    weight: float = 1.0
    rotation: Rotation = Rotation.EVEN
    hours: tuple[str, ...] = ()
    targeting: Targeting | None = None
    page: PageRule = PageRule.ONE
    goal: Goal | None = None
    pacing: Pacing = Pacing.EVEN
    on_shortfall: OnShortfall = OnShortfall.STOP
    frequency: tuple[Cap, ...] = ()


PAUSED = ("line_item", "advertiser", "category", "section")
"""What can be paused: the fields of `Pause` of which exactly one is given."""


class Pause(Struct, frozen=True, kw_only=True):
    """What does not show from *starts* until *ends*, and then comes back by itself: a line item, all line items of an
    advertiser, or of every advertiser of a category, or on pages of a section everything but house ads.

    *reason* is for people; *by* is who asked for it.
    """

    id: str
    line_item: str | None = None
    advertiser: str | None = None
    category: str | None = None
    section: str | None = None
    starts: float
    ends: float
    reason: str = ""
    by: str = ""


class NoFill(Enum):
    """Why a request was answered with no ad. A closed list: it labels a metric and names a count."""

    UNKNOWN_SLOT = "unknown-slot"
    NO_BOOKING = "no-booking"
    NOT_LIVE = "not-live"
    OUTSIDE_SHARE = "outside-share"
    DUPLICATE_CREATIVE = "duplicate-creative"
    FORMAT = "format"
    OUTSIDE_HOURS = "outside-hours"
    NOT_TARGETED = "not-targeted"
    PAGE_RULE = "page-rule"
    GOAL = "goal-reached"
    PACING = "pacing"
    FREQUENCY = "frequency"
    PAUSED = "paused"
    CONSENT = "consent"
    WEIGHT = "weight"
