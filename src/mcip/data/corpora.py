"""Texts of things and texts of how things are shown, from which BASIC learns what an image query should look at."""

from __future__ import annotations

from typing import Final

# What an image is of.
SUBJECTS: Final = tuple(
    """accordion, airplane, ambulance, anchor, ant, apple, apron, armchair, artichoke, astronaut, backpack, badge,
    bagel, balcony, balloon, banana, barn, barrel, baseball, basket, basketball, bat, bathtub, beach ball, bear,
    beaver, bed, bee, beer glass, bell, belt, bench, bicycle, binoculars, birthday cake, bison, blanket, blender,
    blouse, boat, book, bookshelf, boot, bottle, bow, bowl, boxer dog, bracelet, bread, bridge, broccoli, broom,
    brush, bucket, building, burger, bus, butterfly, button, cabbage, cactus, cake, calculator, camel, camera, can,
    candle, cannon, canoe, cap, car, carpet, carrot, cart, castle, cat, cauliflower, ceiling lamp, cell phone,
    cello, chair, chandelier, cheese, cheetah, cherry, chess board, chest, chicken, church, city hall, clarinet,
    cliff, cloak, clock, coat, coconut, coffee machine, coin, comb, compass, computer, container ship, cookie, corn,
    couch, cow, crab, crane, crocodile, crown, cucumber, cup, cupboard, curtain, cushion, deer, desk, dinosaur,
    dishwasher, dog, doll, dolphin, donkey, door, dragonfly, dress, drill, drum, duck, eagle, earring, egg,
    elephant, envelope, eraser, excavator, eyeglasses, fan, farm, fence, fire engine, fireplace, fish, flag,
    flamingo, flower, flute, fork, fountain, fox, frame, fridge, frog, frying pan, garlic, gate, giraffe, glove,
    goat, goldfish, golf ball, goose, gorilla, grape, guitar, hair dryer, hammer, hammock, hamster, handbag,
    harbour, harp, hat, hedgehog, helicopter, helmet, hen, hippopotamus, hot dog, house, ice cream, iron, jacket,
    jar, jeans, jellyfish, jug, kangaroo, kettle, key, keyboard, kite, knife, koala, ladder, lake, lamp, laptop,
    leaf, lemon, leopard, letter, lighthouse, lion, lipstick, lizard, llama, lobster, lorry, magnet, mailbox, man,
    mango, map, mask, medal, melon, microphone, microscope, microwave oven, mirror, mitten, monkey, moon, moped,
    mosque, motorcycle, mountain, mouse, mug, mushroom, nail, necklace, needle, nest, newspaper, notebook, oak,
    octopus, olive, onion, orange, orchid, ostrich, otter, oven, owl, paintbrush, pancake, panda, parachute, parrot,
    passport, peach, peacock, pear, pen, pencil, penguin, pepper, piano, pig, pigeon, pillow, pineapple, pipe,
    pizza, plate, plum, polar bear, potato, pretzel, printer, pumpkin, purse, pyramid, rabbit, raccoon, racket,
    radio, railway carriage, raincoat, rat, refrigerator, rhinoceros, rice, ring, robot, rocket, rose, rug, ruler,
    sandal, sandwich, saucepan, sausage, saw, saxophone, scarf, scissors, scooter, screw, screwdriver, seagull,
    seal, sewing machine, shark, sheep, shelf, shell, ship, shirt, shoe, shovel, shower, sink, skateboard, skirt,
    skull, sled, snail, snake, sneaker, snowman, soap, sock, sofa, spider, spoon, squirrel, stadium, stairs,
    stapler, starfish, statue, stool, strawberry, suit, suitcase, sunflower, surfboard, swan, sweater, swimsuit,
    sword, syringe, t-shirt, table, tank, tea pot, telephone, telescope, television, temple, tent, tie, tiger,
    toaster, toilet, tomato, toothbrush, tower, toy car, tractor, traffic light, train, tram, tree, trombone,
    trousers, truck, trumpet, tulip, turtle, typewriter, umbrella, van, vase, violin, waffle, wallet, wardrobe,
    washing machine, watch, watering can, watermelon, whale, wheel, wheelbarrow, windmill, window, wine glass, wolf,
    woman, yacht, zebra""".replace("\n    ", " ").split(", ")
)
# How, where and when it is shown, in what state, colour, material and style.
STYLES: Final = tuple(
    """red, blue, green, yellow, black, white, orange, purple, pink, brown, grey, golden, silver, colourful, dark,
    bright, pale, transparent, shiny, matt, striped, dotted, checked, plain, patterned, old, new, broken, rusty,
    dirty, wet, dusty, burning, frozen, melting, torn, folded, empty, full, open, closed, tiny, huge, wooden, made
    of metal, made of glass, made of plastic, made of paper, made of stone, made of leather, made of wool, made of
    clay, made of ice, knitted, inflatable, at night, at sunset, at sunrise, at noon, at dawn, in spring, in summer,
    in autumn, in winter, in the rain, in the snow, in the fog, in a storm, under a blue sky, under water, in space,
    in the desert, in a forest, in a field, on a beach, on a mountain, on the street, in a city, in a village, in a
    garden, in a park, in a kitchen, in a living room, in a bedroom, in a bathroom, in an office, in a shop, in a
    museum, in a factory, in a classroom, in a stadium, at a market, at a party, on a stage, on a table, on a shelf,
    on the floor, on a wall, in a box, on a plate, in a hand, behind glass, on a white background, on a black
    background, seen from above, seen from below, seen from behind, seen from the side, from far away, close up, out
    of focus, in motion, upside down, in a mirror, in the shade, in bright sunlight, by candlelight, in neon light,
    as a silhouette, in black and white, in sepia, in pastel colours, a photo, a painting, a watercolour, an oil
    painting, a pencil drawing, a sketch, a cartoon, a comic, a sculpture, a mosaic, graffiti, a tattoo, a logo, an
    icon, a stamp, a poster, a book cover, a sticker, embroidery, origami, pixel art, a 3d rendering, a blueprint,
    an x-ray image, a screenshot, a collage, a toy, a costume, a statue, a postcard, a map, a diagram, a children's
    drawing, a stained glass window, an engraving, an old photograph, a film still, an advertisement, in use, being
    repaired, with people, with a dog, held by a child, next to a car, among flowers, covered in snow, covered with
    leaves, with a shadow, with a reflection, in a crowd, alone, in pairs, many of them, half of it, with text on
    it, with a ribbon, in its packaging""".replace("\n    ", " ").split(", ")
)
