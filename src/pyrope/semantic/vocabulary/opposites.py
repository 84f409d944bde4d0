"""English words and their opposites, case-folded."""

from __future__ import annotations

from typing import Final

_PAIRS: Final = """
enable disable | identical different | cheapest expensive | cheap costly | enabled disabled
enabling disabling | enables disables | activate deactivate | activated deactivated
increase decrease | increase reduce | increase lower | increases decreases | increased decreased
increased reduced | increasing decreasing | increasing reducing | increases reduces | raise lower
raised lowered | raising lowering | raise reduce | allow deny | allow forbid | allow block
allow prevent | allow prohibit | allow disallow | allowed forbidden | allowed prohibited
allowed denied | allowed blocked | allowing blocking | permit forbid | permitted forbidden
permitted prohibited | permit deny | accept reject | accept decline | accept refuse
accepted rejected | accepted declined | accepting rejecting | start stop | started stopped
starting stopping | start end | start finish | starts stops | starts ends | begin end
begin finish | beginning end | begins ends | begin stop | begins stops | open close
opened closed | opening closing | open closed | open shut | opens closes | lock unlock
locked unlocked | locking unlocking | add remove | added removed | adding removing | add delete
add subtract | adds removes | insert delete | insert remove | create delete | create destroy
created deleted | creating deleting | create remove | install uninstall | installed uninstalled
installing uninstalling | install remove | build demolish | build destroy | gain lose
gained lost | gaining losing | gains loses | gains losses | gain loss | win lose | won lost
winning losing | wins loses | find lose | found lost | buy sell | bought sold | buying selling
buyer seller | buys sells | purchase sell | purchasing selling | borrow lend | borrowing lending
borrowed lent | give take | gave took | giving taking | given taken | give receive | send receive
sent received | sending receiving | sends receives | push pull | pushing pulling | upload download
uploaded downloaded | uploading downloading | import export | imported exported
importing exporting | imports exports | encode decode | encoding decoding | encrypt decrypt
encrypted decrypted | encrypting decrypting | encryption decryption | compress decompress
compress extract | zip unzip | mount unmount | subscribe unsubscribe | subscribing unsubscribing
follow unfollow | follow ignore | block unblock | blocked unblocked | blocking unblocking
mute unmute | show hide | shown hidden | showing hiding | shows hides | visible hidden
visible invisible | login logout | in out | on off | up down | upgrade downgrade
upgraded downgraded | upgrading downgrading | attach detach | connect disconnect
connected disconnected | connecting disconnecting | join leave | joining leaving | joined left
enter exit | enter leave | entering leaving | entering exiting | arrive depart | arrive leave
arrival departure | arrivals departures | arriving departing | entrance exit | come go
coming going | before after | earlier later | early late | earliest latest | first last
previous next | past future | old new | older newer | oldest newest | old young | older younger
oldest youngest | ancient modern | more less | more fewer | most least | most fewest | many few
much little | higher lower | highest lowest | high low | above below | over under | top bottom
maximum minimum | maximize minimize | maximise minimise | maximizing minimizing | max min
biggest smallest | bigger smaller | big small | large small | larger smaller | largest smallest
longest shortest | longer shorter | long short | tall short | taller shorter | tallest shortest
wide narrow | wider narrower | thick thin | thicker thinner | deep shallow | heavy light
heavier lighter | heaviest lightest | fast slow | faster slower | fastest slowest | quick slow
quickly slowly | accelerate decelerate | accelerate slow | strong weak | stronger weaker
strongest weakest | strengths weaknesses | strength weakness | strengthen weaken | hot cold
hotter colder | hottest coldest | warm cool | warmer cooler | warming cooling | heat cool
heating cooling | wet dry | wetter drier | hard soft | hard easy | harder easier | hardest easiest
difficult easy | difficult simple | rough smooth | sharp blunt | bright dark | lighten darken
light dark | day night | good bad | good evil | better worse | best worst | good poor | well badly
right wrong | correct incorrect | true false | safe unsafe | safe dangerous | safest riskiest
safe risky | safely unsafely | legal illegal | lawful unlawful | valid invalid
possible impossible | healthy unhealthy | healthy sick | happy sad | happy unhappy | love hate
loves hates | loved hated | like dislike | likes dislikes | liked disliked | like hate
agree disagree | agrees disagrees | approve reject | approve disapprove | approved rejected
support oppose | supports opposes | supported opposed | supporting opposing | for against
pro con | pros cons | advantage disadvantage | advantages disadvantages | benefit drawback
benefits drawbacks | benefits risks | benefits harms | benefits disadvantages | benefit harm
advantages drawbacks | beneficial harmful | helpful harmful | help harm | help hurt | helps hurts
helps harms | improve worsen | improves worsens | improved worsened | improving worsening
improve degrade | positive negative | optimistic pessimistic | trust distrust | trust mistrust
profit loss | profits losses | success failure | succeed fail | succeeds fails | succeeded failed
pass fail | passed failed | passing failing | passes fails | rich poor | richer poorer
richest poorest | wealthy poor | cheap expensive | cheaper expensive | cheapest dearest
cheapest priciest | cheaper pricier | free paid | expand contract | expanding contracting
expand shrink | grow shrink | growing shrinking | grew shrank | growth decline | rise fall
rises falls | rising falling | rose fell | ascend descend | ascending descending | ascent descent
climb descend | lift drop | full empty | fill empty | inside outside | indoor outdoor
indoors outdoors | internal external | interior exterior | inner outer | public private
publicly privately | online offline | synchronous asynchronous | male female | man woman
men women | boy girl | boys girls | mother father | husband wife | son daughter | brother sister
brothers sisters | king queen | left right | leftmost rightmost | front back | forward backward
forwards backwards | north south | northern southern | east west | eastern western
vertical horizontal | vertically horizontally | parallel serial | parallel perpendicular
input output | inputs outputs | read write | reading writing | client server | source destination
sender receiver | sender recipient | employer employee | teacher student | landlord tenant
plaintiff defendant | creditor debtor | debit credit | asset liability | assets liabilities
supply demand | offer demand | question answer | cause prevent | causes prevents
caused prevented | causing preventing | cause cure | causes cures | promote prevent
promote inhibit | encourage discourage | encourages discourages | include exclude
includes excludes | included excluded | including excluding | inclusive exclusive | keep discard
keep delete | keep remove | save delete | save spend | saving spending | save waste
remember forget | learn unlearn | known unknown | always never | everyone nobody
everybody nobody | everything nothing | all none | with without | present absent
presence absence | alive dead | live die | living dead | birth death | born died | war peace
attack defend | attacking defending | attack defence | attack defense | guilty innocent
friend enemy | friends enemies | ally enemy | marry divorce | hire fire | hired fired
hiring firing | employed unemployed | freeze thaw | freezing boiling | freezing melting
freeze melt | freeze boil | melting boiling | absorb emit | absorb reflect | inhale exhale
tighten loosen | tight loose | stretch shrink | straight curved | simple complex
temporary permanent | temporarily permanently | static dynamic | mutable immutable | local remote
local global | manual automatic | manually automatically | odd even | sum difference
multiply divide | multiplication division | addition subtraction | integrate differentiate
plus minus | differences similarities | difference similarity | different same | similar different
singular plural | asleep awake | sleep wake | laugh cry | acid base | acidic alkaline
anode cathode | cation anion | oxidation reduction | convex concave | introvert extrovert
liberal conservative | democrat republican | liberals conservatives | democrats republicans
vegetarian carnivore | sunrise sunset | summer winter | today tomorrow | today yesterday
yesterday tomorrow | am pm | a.m. p.m. | weekday weekend | weekdays weekends | morning evening
mandatory optional | required optional | compulsory voluntary | compulsory optional
necessary unnecessary | domestic foreign | domestic international | national international
urban rural | civilian military | verbose quiet | verbose silent | loud quiet | louder quieter
noisy quiet | strict lenient | stricter looser | uppercase lowercase | prefix suffix | head tail
parent child | parents children | master slave | primary secondary | major minor
majority minority | superior inferior | senior junior | endothermic exothermic | aerobic anaerobic
diurnal nocturnal | archive unarchive | pin unpin | freeze unfreeze | pause resume
paused resumed | suspend resume | stop continue | quit continue | quit start | commit revert
commit rollback | merge split | deposit withdraw | deposits withdrawals | depositing withdrawing
deposit withdrawal | inflation deflation | overweight underweight | overestimate underestimate
overvalued undervalued | hypertension hypotension | hyperglycemia hypoglycemia
hyperthyroidism hypothyroidism | bull bear | bullish bearish | stay leave | staying leaving
visit avoid | seek avoid | use avoid | using avoiding | eat avoid | supporter opponent
supporters opponents | proponent opponent | proponents opponents | supporter critic
supporters critics | fans critics | expand collapse | expanded collapsed | expanding collapsing
warmer colder | warm cold | hotter cooler | hot cool | heat chill | rise drop | rises drops
rising dropping | climb fall | increase drop | increased dropped | increasing dropping
increases drops | increase fall | grow decline | growing declining | grew declined
grows declines | appear vanish | appearing vanishing | fix break | fixed broken | fixing breaking
repair break | repair damage | clean dirty | clean pollute | cleaner dirtier | calm angry
calm nervous | flexible rigid | common rare | commonly rarely | often rarely | often seldom
frequently rarely | frequently seldom | always rarely | usually rarely | always seldom
modern traditional | natural artificial | natural synthetic | organic synthetic | raw cooked
fresh stale | fresh frozen | fresh rotten | sweet sour | sweet bitter | sweet salty | mild spicy
sober drunk | single married | guest host | predator prey | predators prey | doctor patient
doctors patients | winner loser | winners losers | victory defeat | buyers sellers
lender borrower | lenders borrowers | near far | nearest farthest | nearest furthest
closest farthest | closest furthest | close far | nearer farther | upstairs downstairs
upstream downstream | upward downward | upwards downwards | uphill downhill | onshore offshore
frontend backend | stereo mono | analog digital | analogue digital | wired wireless
lossy lossless | readonly writable | opensource proprietary | active passive | alive extinct
abundant scarce | abundance scarcity | shortage surplus | deficit surplus | bankrupt solvent
generous stingy | polite rude | gentle rough | kind cruel | hire dismiss | appoint dismiss
arrest release | arrested released | imprison release | advance retreat | attack retreat
conquer surrender | victim perpetrator | guilt innocence | love hatred | young elderly
child adult | children adults | kids adults | kid adult | husbands wives | fathers mothers
dad mom | dads moms | uncle aunt | nephew niece | nephews nieces | actor actress | waiter waitress
boyfriend girlfriend | groom bride | prince princess | gentlemen ladies | employees employers
teachers students | morning night | noon midnight | dawn dusk | takeoff landing | departs arrives
add deduct | ceiling floor | roof basement | beginning ending | introduction conclusion
problem solution | problems solutions | cause effect | causes effects | cause consequence
causes consequences | offense defense | offence defence | offensive defensive | hero villain
heroes villains | protagonist antagonist | optimist pessimist | lucky unlucky
fortunate unfortunate | heaven hell | angel devil | theory practice | fact fiction
fiction nonfiction | truth lie | true fake | real fake | real imaginary | genuine fake
original copy | original counterfeit | solid liquid | liquid gas | melt solidify
evaporate condense | evaporation condensation | expansion contraction | tension compression
attract repel | attraction repulsion | entry exit | lower upper | ingress egress
inbound outbound | incoming outgoing | producer consumer | producers consumers | publish subscribe
publisher subscriber | push pop | enqueue dequeue | acquire release | allocate free | grant revoke
granted revoked | granting revoking | assign unassign | serialize deserialize | minify beautify
stage unstage | checkin checkout | login logoff | signin signout | whitelist blacklist
allowlist denylist | opt-in opt-out | synchronous async | stateful stateless | even uneven
heads tails | clockwise counterclockwise | clockwise anticlockwise | portrait landscape
numerator denominator | dividend divisor | speed slow | sooner later | remain leave | keep lose
keep sell | catch throw | catch release | cheaply expensively | overweight thin | fat thin
fat slim | fatter thinner | beautiful ugly | pretty ugly | handsome ugly | smart stupid
smart dumb | clever stupid | intelligent stupid | wise foolish | brave afraid | bold shy
confident shy | proud ashamed | busy idle | busy free | lazy hardworking | lazy diligent
tired energetic | sad cheerful | miserable happy | virtue vice | praise criticize
praise criticise | praise blame | praised criticized | compliment insult | reward punish
reward punishment | rewarded punished | forgive punish | innocent liable | defend accuse
defend prosecute | defence prosecution | defense prosecution | acquit convict
acquitted convicted | confirm deny | confirmed denied | admit deny | prove disprove | prove refute
affirm deny | confess deny | reveal conceal | reveal hide | expose conceal | transparent opaque
clear blurry | clear vague | clear ambiguous | explicit implicit | literal figurative
concrete abstract | quantity quality | quantitative qualitative | objective subjective
deductive inductive | discrete continuous | finite infinite | rural metropolitan | peak trough
crest trough | boom bust | appreciate depreciate | appreciation depreciation | premium discount
wholesale retail | gross net | this next | this last | this previous | current next
current previous | cover exclude | covers excludes | covered excluded | include exclude
includes excludes | included excluded | including excluding | contain lack | contains lacks
containing lacking | accepting declining | accepts declines
accepted declined | accepts rejects | eat avoid | take avoid | buy avoid | tonight tomorrow
tonight yesterday
"""


def _both_ways() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for line in _PAIRS.strip().splitlines():
        for pair in line.split(" | "):
            one, other = pair.split()
            found.setdefault(one, set()).add(other)
            found.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


OPPOSITES: Final = _both_ways()
"""The opposites of a word."""
