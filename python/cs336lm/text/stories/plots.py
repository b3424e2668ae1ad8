"""What happens in the stories: the rules of the grammar, in the notation of `grammar`.

Each plot introduces somebody, brings trouble, somebody who helps, and an ending; what was drawn
on the way comes back until the end. Options must differ before either ends, which is why full
stops and commas often stand inside the brackets.
"""

RULES = """
[story]
- <opening> <plot>

[opening]
6x Once upon a time, there was <somebody>
2x There once was <somebody>
1x Long ago, there was <somebody>
1x In a land far away, there was <somebody>

[somebody]
- a <adjective> <kin> named {hero := kin.names}. {hero.He} lived {home := kin.homes}.

[adjective]
- (little|young|kind|brave|merry|clever|shy|cheerful|gentle|funny|curly|sleepy)

[kin]
4x {kin := girl}
4x {kin := boy}
5x {kin := beasts}

[plot]
- <lost>
- <learn>
- <rescue>
- <share>
- <afraid>
- <build>
- <seed>
- <quarrel>
- <stranger>
- <present>


[time]
2x One <weather> (morning|afternoon|day),
- On a <weather> (morning|afternoon|day),
- One day, when the (sun was shining|wind was blowing|birds were singing|sky was gray),

[weather]
- (sunny|windy|rainy|cold|warm|quiet|foggy|bright)

[sad]
- {hero.He} began to cry.
- {hero} felt very sad.
- A tear ran down {hero.his} cheek.
- {hero.His} heart felt heavy.
- {hero} sat down and did not say a word.

[glad]
- {hero} jumped for joy.
- {hero} laughed out loud.
- {hero} smiled from ear to ear.
- {hero} was very happy.
- How happy {hero} was!

[comes]
- (Just then|Soon after|After a while), {helper.a := helpers} came (by|along|down the path).
- {helper.A := helpers} (heard|saw) {hero.him} and came closer.

[friends]
- From that day on, {hero} and the {helper} were (best friends|good friends|never far apart).

[tries]
- (again|once more|a second time)


[lost]
- {hero} had a {colour := colours} {toy := toys}. <lost-loved> ¶
  <time> {hero} took the {toy} to {place := places}. <lost-gone> <sad> ¶
  <comes> "(Why are you so sad|What is the matter|What happened), {hero}?" asked the {helper}. ¶
  "I lost my {colour} {toy}," said {hero}. ¶
  "{helper.can}," said the {helper}. "(Let us look together|I will help you|We will find it)." ¶
  <lost-found> <lost-end>

[lost-loved]
- It was a (gift|present|surprise) from {elder := elders}. Every day, {hero} {toy.used}.
- {elder := elders} had made it for {hero.him}. {hero} {toy.used} all day long.
- {hero} got it from {elder := elders} and loved it (very much|more than anything). Every
  (morning|evening), {hero.he} {toy.used}.

[lost-gone]
- {hero.He} (played and ran|sang and danced|met some friends) there until it was late. But when it
  was time to go home, the {toy} was gone! {hero} looked (high and low|here and there|everywhere),
  but could not find it.
- {hero.He} put it down (for a moment|to pick some flowers|to climb a tree). When {hero.he} looked
  again, the {toy} was gone! {hero.He} (called for it|turned around and around|ran to and fro),
  but there was no {toy}.

[lost-found]
- They looked and looked. At last, the {helper} saw something {colour} {spot := place.spots}. It
  was the {toy}!
- Together they went back. And there, {spot := place.spots}, (lay|they saw) the {colour} {toy}!
- The {helper} looked {spot := place.spots}. "(Is this it|What is this)?" And there was the {toy}!

[lost-end]
- <glad> "Thank you, {helper}!" {hero.he} (said|cried|shouted).
- From then on, {hero} always (took good care of|kept an eye on) the {toy}.
- Back at home, {hero} showed the {toy} to {elder} and said, "I have a new friend!"
- They (played|sat|laughed) together {place.where} until the moon came up.


[learn]
- <learn-wish> ¶
  <time> {hero.he} tried it for the first time. But {hero.he} {skill.fail}. {hero.He} tried
  <tries>, and {hero.he} {skill.fail} again. <sad> "(I will never learn to|I am too small to|It is
  too hard to) {skill}," {hero.he} said. ¶
  {mentor := elders} (heard|saw) it and sat down next to {hero.him}. <learn-tip> ¶
  {hero} (nodded|wiped {hero.his} eyes|took a deep breath). For (three|five|seven|ten) days,
  {hero.he} tried and tried. (And then it happened|Then the great day came)! {hero} {skill.done}.
  "Look, {mentor}! I can {skill}!" {hero.he} (shouted|called). ¶
  <learn-end>

[learn-wish]
- More than anything, {hero} wanted to {skill := skills}.
- All {hero.his} friends could {skill := skills}. Only {hero} could not.
- {hero.His} greatest wish was to {skill := skills}.

[learn-tip]
- "I could not {skill} either when I was small," said {mentor}. "Do you want to know a secret?
  {skill.tip}."
- "{skill.tip}," said {mentor}. "And try once more tomorrow."
- "Nobody can {skill} on the first day," said {mentor}. "{skill.tip}."

[learn-end]
- "You did not give up," said {mentor}. "That is the whole secret."
- Now {hero} shows all the other children how to {skill}.
- And to this day, nobody can {skill} as well as {hero}.
- {mentor} (hugged {hero.him}|clapped and cheered|was very proud). <glad>


[rescue]
- {hero} liked to (take long walks|look for pretty stones|listen to the birds|pick wild flowers).
  <time> {hero.he} went to {place := places}. ¶
  <rescue-call> {spot.Name := place.spots}, {hero.he} saw {creature.a := creatures}. It was
  {trap := traps}! ¶
  "(Do not be afraid|Hold on|Stay calm), little {creature}," said {hero}. "I will (get you
  out|help you|set you free)." <rescue-try> {hero.He} (ran to get|went to find|came back with)
  {trap.with}, and with it {hero.he} {trap.freed}. Now the {creature} was free! ¶
  "Thank you, {hero}," said the {creature}. "(You are so kind|You saved me). One day I will help
  you too." <rescue-end>

[rescue-call]
- There {hero.he} heard a small voice. "Help! Please help me!" {hero} (looked
  around|stopped|followed the voice).
- Somebody was (crying|calling for help|sobbing). "Who is there?" asked {hero}. "It is me," said a
  tiny voice.

[rescue-try]
- {hero.He} (pulled and pulled|tried with bare hands), but it was no use. Then {hero.he} had an
  idea.
- {hero} (sat down to think|thought hard). "I know what to do!" {hero.he} said.

[rescue-end]
- And so it did. When {hero} lost {hero.his} way in the (dark|fog|snow), the {creature} came and
  led {hero.him} home.
- Every (morning|evening), the {creature} came to visit {hero}, and they told each other stories.
- {hero} ran home and told {elder := elders} all about the {creature}. "I am proud of you," said
  {elder}.


[share]
- <time> {hero} (packed|carried|took) {treat := treats} and went to {place := places}. {hero.He}
  sat down and wanted to eat. "This (smells so good|will taste good)," {hero.he} said. ¶
  <comes> The {helper} looked (thin|tired|hungry) and sad. "I have not eaten (all day|since
  yesterday|for two days)," said the {helper} in a low voice. ¶
  <share-thought> "Sit down, dear {helper}," {hero.he} said. "There is enough for two." So they
  shared {treat.it}, and (it tasted|everything tasted) better than ever. ¶
  "You have a good heart," said the {helper}. "(I have something for you|Take this)." And the
  {helper} gave {hero} {gift := gifts}. <share-end>

[share-thought]
- {hero} looked at {treat.it}. It was not much, and {hero.he} was hungry too. But then {hero.he}
  (smiled|made room).
- {hero} thought (about it|for a moment). {hero.His} own tummy was empty. But {hero.he} could not
  eat alone.

[share-end]
- <friends>
- At home, {hero} put {gift.it} (on the shelf|next to the bed|in the window) and thought of the
  {helper}.
- And {hero} learned that what you share (comes back to you|tastes twice as good).
- <glad> {hero.He} still has {gift.it} today.


[afraid]
- {hero} was (happy|brave|full of fun) all day long. But at night, {hero.he} was afraid of the
  dark. ¶
  One <night> night, {hero} woke up. Something {noise := noises}! {hero.He} hid under the blanket
  and (shook like a leaf|held {hero.his} breath|did not dare to move). "{elder := elders}!"
  {hero.he} called. "There is a (monster|ghost|dragon|giant)!" ¶
  {elder} came with a (candle|lamp|lantern) and sat down on the bed. "Let us go and see," said
  {elder}. "I will (hold your hand|go first|be with you)." Step by step they went. There it was
  again! Something {noise}. <afraid-fear> ¶
  Then they saw it. It was only a {noise.truth}! <afraid-end>

[night]
- (cold|stormy|dark|quiet|moonless)

[afraid-fear]
- {hero} (wanted to run away|closed {hero.his} eyes|swallowed hard), but {elder} held {hero.his}
  hand.
- "I want to go back," (whispered|said) {hero}. "We are almost there," said {elder}.

[afraid-end]
- {hero} (laughed and laughed|had to giggle|let out a long breath). "Good night," {hero.he} said
  to it, and went back to bed.
- "The dark is not so bad," said {hero}, "when you look at it together."
- Since that night, {hero} (is not afraid any more|sleeps without a light).


[build]
- {hero} loved to build things. <time> {hero.he} (went out|got up early|had the idea) to build a
  {building := buildings}. {hero.He} made it from {building.from}. <build-proud> ¶
  But then, oh no! {building.Breaks}. The {building} was broken. <sad> "(All my work was for
  nothing|It is all over|I will never build again)," {hero.he} said. ¶
  {hero.His} friend {friend := names - hero} came running. "(Do not cry|Cheer up|Never mind),
  {hero}," said {friend}. "We can build it again, {building.better}. And this time, we do it
  together!" ¶
  So they (set to work|began again|started over). {hero} (carried|found) more {building.from}, and
  {friend} (helped to put it all together|knew just what to do|sang a song). When the sun went
  down, the new {building} was (finished|done), and it was even better than the first. <build-end>

[build-proud]
- It took (all morning|a long time|many hours), and it was the best {building} in the whole land.
- "This is my own {building}," {hero.he} said (with pride|and clapped).

[build-end]
- "Two are better than one," said {hero}, and {friend} (nodded|laughed).
- {friend} put a little {colour := colours} flag on it. <glad>
- They sat next to it and (shared an apple|watched the stars come out).


[seed]
- <time> {elder := elders} gave {hero} a tiny {seed := seeds} seed. "Put it in the ground, give it
  water, and wait," said {elder}. ¶
  {hero} (dug a small hole|found a sunny place|got a big pot) and planted the seed. Every morning
  {hero.he} brought water, and every evening {hero.he} looked. But there was (nothing to see|only
  brown earth). "When will it grow?" (asked|sighed) {hero}. "(Wait and see|Good things take
  time|Be patient)," said {elder}. ¶
  (One week|Two weeks|Ten days) went by. {hero} wanted to (give up|dig it up again|cry), but
  {hero.he} (waited|kept on watering|sang to it every day). Then, one day, there was a small green
  leaf! <seed-grows> ¶
  {hero} and {elder} made {seed.made}, and <seed-end>

[seed-grows]
- The plant grew as high as (a chair|the fence|the roof|{hero.his} knee). By the end of summer, it
  was the biggest {seed} plant anyone had ever seen.
- "Look, {elder}, look!" (cried|called) {hero}. The sun shone, the rain fell, and the {seed} plant
  grew and grew.

[seed-end]
- all the neighbors came to eat and sing.
- {hero} kept one seed for the next year.
- {elder} said, "It was worth the wait."


[quarrel]
- {hero} had a friend named {friend := names - hero}. They (did everything together|met every
  day). ¶
  <time> they found a {colour := colours} {prize := prizes} {place.where := places}. "I saw it
  first!" (shouted|said|cried) {hero}. "No, it is mine!" (shouted|said|cried) {friend}.
  <quarrel-fight> Soon they were both (angry|crying|red in the face). ¶
  {helper.A := helpers} had heard the noise. "(What is the matter|Why so loud)?" asked the
  {helper}. "We both want the {prize}," said {hero}. The {helper} thought (about it|for a
  moment|long and hard). "Then (take turns|share it)," the {helper} said. "One (counts to a
  hundred|sings a song|tells a story), while the other one plays." ¶
  {hero} looked at {friend}. "You can go first," {hero.he} said. "I am sorry." "I am sorry too,"
  said {friend}. So they shared the {colour} {prize}, and <quarrel-end>

[quarrel-fight]
- {hero} pulled on one side, and {friend} pulled on the other.
- {friend} stamped {friend.his} foot, and {hero} stamped {hero.his} foot too.

[quarrel-end]
- it was much more fun than before.
- they never (fought|quarreled) about it again.
- the {helper} (smiled|went away with a smile).


[stranger]
- {hero} often (felt alone|sat alone) and wished for a friend. ¶
  <time> {hero.he} heard a strange sound {place.where := places}. "{stranger.Sound := strangers}!"
  it went. {hero} (walked on tiptoe|came closer) and looked {spot := place.spots}. There
  (stood|sat) a little {stranger}. "I am lost," it said. "I am looking for {stranger.wants}. Do
  you know the way?" ¶
  "I do not," said {hero}, "but (let us find it together|we can ask|I will go with you)." They
  went (over a bridge|through the tall grass|past an old mill|down a long path). <comes> "Follow
  me," said the {helper}. "{helper.can}." ¶
  And (soon|before long), they found {stranger.goal}! The little {stranger} (jumped|danced) for
  joy. "{stranger.Sound}! Thank you, {hero}," it said. "Will you be my friend?" <stranger-end>

[stranger-end]
- "Yes," said {hero}, and {hero.he} was never alone again.
- <glad> "I wished for one friend," {hero.he} said, "and now I have two."
- Now they meet {place.where} every (day|week|Sunday).


[present]
- (Tomorrow|In three days) was the birthday of {elder := elders}, and {hero} had no present yet.
  "I have no money," {hero.he} thought. "But I can (find|make) something nice." ¶
  <time> {hero.he} went to {place := places}. <present-search> ¶
  <comes> "Look {spot := place.spots}," said the {helper}. "There is something for you." {hero}
  looked, and there lay {gift := gifts}! "(May I really have it|Is it for me)?" asked {hero}.
  "(Yes|Of course)," said the {helper}, "because you (were so kind to me last winter|always say
  hello|look so sad)." ¶
  {hero} ran home and (put a ribbon around|wrapped some paper around|hid) {gift.it}. When {elder}
  saw {gift.it}, {elder.he} (could not speak for joy|danced through the house|gave {hero} a kiss).
  <present-end>

[present-search]
- {hero.He} looked at (flowers|stones|leaves), but nothing was good enough. <sad>
- {hero.He} tried to make a (picture|necklace|basket), but it (broke|fell in the water). <sad>

[present-end]
- "It is the best present of all," said {elder}, "because it comes from you."
- And there was {treat := treats} for everyone, the {helper} too.
- "Happy birthday, {elder}!" (sang|said|shouted) {hero}.
"""
