"""Answers and references with the right verdict, by kind. Each entry is (reference, answers that match, answers that do
not). Every kind has both, so a verifier that says always yes or always no fails in every kind.
"""

from __future__ import annotations

Entry = tuple[object, list[object], list[object]]

NUMBERS: dict[str, list[Entry]] = {
    "plain numbers": [
        ("7", ["7", "7.", " 7 ", "7.0", "07", "+7", "7\n", "`7`", "*7*", "__7__", "= 7"], ["77", "0.7", "-7", "7.1", "17", "71"]),
        ("0", ["0", "0.0", "zero", "-0"], ["00001", "1", "O", "none"]),
        ("19.50", ["19.5", "19.500", "$19.50"], ["19.05", "195", "1950", "19"]),
        (".25", ["0.25", ".25", "1/4"], ["25", "2.5", "0.025"]),
        ("1234567890123456789", ["1,234,567,890,123,456,789"], ["1234567890123456788", "1234567890123456790"]),
    ],
    "thousands": [
        ("12500", ["12,500", "12 500", "12'500", "12_500", "12,500.00", "12 500", "$12,500"], ["12,5", "12.5", "500", "12"]),
        ("2345678", ["2,345,678", "2.345.678", "23,45,678", "2 345 678", "2’345’678"], ["2,345", "678", "2345.678", "345678"]),
        ("1234.5", ["1,234.5", "1.234,5", "1 234.5"], ["1,2345", "12345", "1.2345"]),
        ("4000", ["4,000", "4 thousand", "4k", "4K", "four thousand"], ["4,00", "4,0000", "4", "40"]),
        ("8.000", ["8", "8.0"], ["8000", "8,000"]),
        ("1,050", ["1050"], ["1", "50", "1.05"]),
        ("3.50 €", ["3,50 €", "3.5 euros"], ["350", "3", "50", "$3.50"]),
    ],
    "signs": [
        ("-15", ["-15", "−15", "–15", "-15.0", "minus fifteen", "negative 15", "x = -15", "- 15", "-$15"], ["15", "+15", "--15x", "fifteen"]),
        ("15", ["+15", "15"], ["-15", "−15", "–15", "minus 15", "negative fifteen", "\\boxed{-15}", "-\\boxed{15}"]),
        ("-0.5", ["-1/2", "-½", "\\frac{-1}{2}", "-\\frac{1}{2}", "-50%", "-.5"], ["0.5", "1/2", "-5"]),
    ],
    "exponents": [
        ("100000", ["1e5", "10^5", "1 × 10^5", "1.0E5", "10⁵", "1 x 10^5", "10**5", "1\\cdot 10^{5}", "1e+05"], ["1e4", "10^6", "5", "10", "1", "105"]),
        ("0.0042", ["4.2e-3", "4.2 × 10^-3", "4.2 × 10⁻³", "4.2 \\times 10^{-3}"], ["4.2", "4.2e3", "3", "4.2 × 10^3"]),
        ("6.02e23", ["6.02 × 10^23", "602000000000000000000000"], ["6.02 × 10^22", "6.02", "23"]),
        ("2^8", ["256", "2^8", "2⁸"], ["28", "16", "8", "2"]),
        ("1e999999999", ["1e999999999"], ["1e999999998", "inf", "10", "1"]),
    ],
    "fractions": [
        ("3/8", ["3/8", "0.375", "6/16", "\\frac{3}{8}", "\\dfrac{3}{8}", "\\tfrac38", "⅜", "3 / 8", "three eighths", "37.5%", "$\\frac{3}{8}$"], ["8/3", "3", "8", "38", "3.8", "\\frac{8}{3}", "3/80"]),
        ("7/2", ["3 1/2", "3½", "3.5", "3\\frac{1}{2}", "three and a half", "7/2", "3 \\frac12", "14/4"], ["31/2", "3", "1/2", "2/7", "3 1/4", "7"]),
        ("1/3", ["1/3", "2/6", "one third", "0.3333333333333333", "a third"], ["0.33", "0.3", "0.3333", "3", "1/30"]),
        ("1 2/3", ["5/3", "1⅔", "1 2/3", "1\\frac{2}{3}"], ["2/3", "1", "12/3", "3/5"]),
        ("-2 1/4", ["-2.25", "-9/4", "-2¼"], ["-1.75", "2.25", "-2", "1/4"]),
        ("5", ["10/2", "5/1", "25/5"], ["5/0", "0/5", "5/2", "1/5", "5/5"]),
    ],
    "percent": [
        ("35%", ["35%", "35 %", "35 percent", "35 per cent", "0.35", "35", "35\\%", "7/20", "thirty-five percent", "35.0%"], ["3.5%", "65%", "350%", "0.035", "3.5", "53%"]),
        ("0.08", ["8%", "0.08", "8 percent"], ["80%", "0.8%", "8", "0.8"]),
        ("125%", ["1.25", "125 %", "5/4"], ["12.5%", "25%", "12.5", "1.25%"]),
    ],
    "currency": [
        ("$48", ["48", "$48", "48 dollars", "48$", "$48.00", "USD 48", "48 USD", "\\$48", "forty-eight dollars"], ["$480", "48 cents", "€48", "$4.80", "£48"]),
        ("€9.99", ["9.99", "€9.99", "9.99 euros", "9,99 €", "€ 9.99"], ["$9.99", "€9", "€99", "9.90"]),
        ("50 cents", ["50 cents", "50¢", "50"], ["$50", "50 dollars", "5 cents"]),
        ("-$20", ["-$20", "$-20", "-20", "−$20", "-20 dollars"], ["$20", "20", "-$200"]),
    ],
    "magnitudes": [
        ("2500000", ["2.5 million", "2.5M", "$2.5 million", "2,500,000", "25 lakh", "2500 thousand", "two and a half million"], ["2.5", "2.5 billion", "2.5k", "2.5 thousand", "25 million", "25"]),
        ("3 billion", ["3,000,000,000", "3 billion", "3bn", "3e9", "three billion"], ["3", "3 million", "3,000,000"]),
        ("24", ["two dozen", "2 dozen", "24"], ["2", "12", "a dozen", "two"]),
        ("1.5", ["1.5", "3/2"], ["1.5k", "1.5M", "1.5 million", "1.5 thousand"]),
    ],
    "units": [
        ("12 km", ["12 km", "12km", "12 kilometers", "12", "12 kilometres.", "12.0 km"], ["12 m", "12 miles", "12 kg", "1.2 km", "12 km/h", "12 cm"]),
        ("9 m^2", ["9 m²", "9 m^2", "9 square meters", "9 m2", "9"], ["9 m", "9 m^3", "2", "81", "9 cm^2"]),
        ("60 km/h", ["60 km/h", "60 kilometers per hour", "60 kph", "60"], ["60 mph", "60 m/s", "60 km", "6 km/h"]),
        ("3", ["3 apples", "3 CO₂ molecules", "3 H2O molecules", "3 boxes of 12 eggs", "3 m/s²", "3 feet", "3本", "3°C"], ["2 apples", "12", "30 apples", "3D", "3x", "3a"]),
        ("25 °C", ["25°C", "25 degrees Celsius", "25", "25 °C"], ["25 °F", "-25°C", "25 kelvin", "77°F"]),
        ("14 girls", ["14 girls", "14", "14 girls in total", "fourteen girls"], ["14 boys", "13 girls", "4 girls", "15 girls"]),
        ("90 minutes", ["90 minutes", "90 min", "90"], ["90 hours", "90 seconds", "9 minutes", "1 hour 90 minutes"]),
        ("8 pounds", ["8 lb", "8 lbs", "8"], ["8 kg", "8 ounces"]),
        ("3rd", ["3rd", "3"], ["33rd", "2nd"]),
    ],
    "ranges and bounds": [
        ("10", ["10", "about 10", "approximately 10", "~10", "≈ 10", "exactly 10", "roughly 10"], ["5-10", "10-15", "5 to 10", "5–10", "between 5 and 10", "10+", "at least 10", "more than 10", "less than 10", "> 10", "≤ 10", "up to 10", "10 ± 2", "10 or more", "almost 10", "from 10 to 20", "over 10"]),
        ("3-5", ["3-5", "3–5"], ["3", "5", "-2", "4", "3-6", "35"]),
        ("20 to 30", ["20 to 30", "20–30"], ["20", "30", "25", "20 to 40"]),
    ],
    "number words": [
        ("42", ["forty-two", "forty two", "Forty-Two.", "forty-two apples"], ["forty", "two", "twenty-four", "four two", "forty-three", "one hundred forty-two"]),
        ("365", ["three hundred sixty-five", "three hundred and sixty-five", "three hundred and sixty five days"], ["three hundred", "sixty-five", "three sixty-five hundred"]),
        ("1999", ["one thousand nine hundred ninety-nine", "nineteen hundred ninety-nine"], ["one thousand", "ninety-nine", "nineteen"]),
        ("seven", ["7", "seven", "Seven.", "7.0", "It is seven."], ["seventy", "seventeen", "8", "-7", "7/2"]),
        ("2.5", ["two and a half", "two point five", "2½"], ["two", "half", "a half", "two and five"]),
        ("0.75", ["three quarters", "three-quarters", "three fourths"], ["three", "quarters", "a quarter", "one third"]),
        ("1", ["one", "One.", "one apple", "There is one apple."], ["no one", "someone", "the right one", "one of them is wrong", "one half", "twenty-one", "every one", "one or two"]),
        ("150", ["one hundred and fifty", "a hundred and fifty", "one hundred fifty"], ["one hundred", "fifty", "a hundred", "one hundred and five"]),
        ("one million", ["1000000", "1,000,000", "a million", "1 million", "10^6"], ["1", "1000", "1 billion", "100000"]),
    ],
    "digits of other scripts": [
        ("123", ["١٢٣", "१२३", "１２３"], ["١٢٤", "१२", "１２３４"]),
        ("0.5", ["½", "１/２", "٠٫٥"], ["¼", "５", "⅕"]),
    ],
    "not numbers": [
        ("5", ["5"], ["inf", "Infinity", "nan", "-∞", "∞", "NaN", "5e", "e5", "0x5", "five-ish maybe", "V"]),
        ("Infinity", ["Infinity", "infinity"], ["1e999", "-infinity", "nan", "8", "finite"]),
        ("192.168.0.1", ["192.168.0.1"], ["192.168.0.2", "192.168", "1", "192.168.1.0"]),
        ("555-0123", ["555-0123"], ["555", "432", "0123", "555-0124"]),
        ("1.2.3", ["1.2.3", "version 1.2.3" ][:1], ["1.2", "3", "1.2.4", "1.23"]),
        ("Apollo 11", ["Apollo 11", "apollo 11.", "It was Apollo 11"], ["11", "Apollo 12", "Apollo", "Apollo 1"]),
        ("World War 2", ["World War 2"], ["2", "World War 1", "World War"]),
        ("7 Up", ["7 Up", "7 up"], ["7", "Up", "8 Up"]),
    ],
    "floats": [
        ("0.30000000000000004", ["0.3", "0.30000000000000004", "3/10"], ["0.4", "0.31", "0.30001"]),
        ("2.200000047683716", ["2.2", "11/5"], ["2.3", "2.25", "2.2000001"]),
        ("0.1", ["0.1", "1/10"], ["0.10001", "0.1000001", "0.11"]),
        ("3.14", ["3.14", "3.140"], ["3.1", "3.14159", "3.1415", "22/7", "\\pi"]),
        ("0.6666666666666666", ["2/3", "0.6666666666666667"], ["0.67", "0.666", "0.6"]),
    ],
    "times": [
        ("14:30", ["14:30", "2:30 pm", "2:30 PM", "at 14:30", "It's 2:30 p.m."], ["2:30", "14:03", "14", "30", "2:30 am", "14.30", "14:30 or 15:30"]),
        ("9:05", ["9:05", "09:05", "9:05 am"], ["9:50", "9:05 pm", "9", "5", "905"]),
        ("noon", ["noon", "Noon."], ["midnight", "afternoon"]),
        ("12:00 am", ["0:00", "12:00 a.m.", "12 am"], ["12:00 pm", "12", "12:00"]),
        ("30", ["30 minutes", "30"], ["8:30", "12:30", "30:00", "0:30"]),
        ("3:1", ["3:1"], ["1:3", "3", "1", "31"]),
    ],
    "dates": [
        ("July 4, 1776", ["July 4, 1776", "4 July 1776", "1776-07-04", "Jul 4th, 1776", "the 4th of July 1776", "It was July 4, 1776"], ["July 5, 1776", "1776", "4", "July 4, 1777", "June 4, 1776", "July 1776"]),
        ("2021-12-25", ["2021-12-25", "25/12/2021", "12/25/2021", "December 25, 2021"], ["2021-12-26", "2021", "1984", "2021-11-25"]),
        ("1969", ["1969", "In 1969", "It happened in 1969."], ["1970", "69", "1969-07-20", "July 20, 1969"]),
    ],
}

STRUCTURES: dict[str, list[Entry]] = {
    "lists": [
        ("2, 4, 6", ["2, 4, 6", "2, 4 and 6", "2,4,6", "2; 4; 6", "2, 4, and 6", "two, four and six"], ["6", "2", "2, 4", "6, 4, 2", "2, 4, 8", "246", "2 4 6 8", "2, 4, 6, 8"]),
        ("3 and 9", ["3, 9", "3 and 9"], ["3", "9", "39", "12", "3 or 9", "3 and 8"]),
        ("red, green and blue", ["red, green, blue", "Red, green, and blue."], ["red", "blue", "red and green", "red, green, yellow"]),
        ("x = 2 or x = 5", ["x = 2, 5", "x = 5 or x = 2", "x=2, x=5"], ["x = 2", "5", "x = 2 or x = 6", "2 or 5 or 6"]),
        ("4", ["4"], ["4, 5", "3, 4", "3 and 4", "1, 2, 3, 4", "4,5", "4;5"]),
    ],
    "tuples and intervals": [
        ("(3, 4)", ["(3, 4)", "(3,4)", "( 3 , 4 )", "(3.0, 4)", "\\left(3, 4\\right)", "$(3,4)$"], ["(4, 3)", "3", "4", "(3, 5)", "[3, 4]", "34", "3.4", "(3, 4, 5)"]),
        ("[0, 1)", ["[0, 1)", "[0,1)"], ["(0, 1)", "[0, 1]", "(0, 1]", "0", "1", "[1, 0)"]),
        ("{1, 2, 3}", ["{1, 2, 3}", "{3, 2, 1}", "\\{1,2,3\\}"], ["{1, 2}", "{1, 2, 4}", "(1, 2, 3)", "3", "6"]),
        ("(-1, 0.5)", ["(-1, 1/2)", "(-1, .5)"], ["(1, 0.5)", "(-1, 5)", "-1", "0.5"]),
    ],
    "operators and symbols": [
        ("C++", ["C++", "c++", "C++."], ["C", "C+", "C#", "++"]),
        ("C#", ["C#"], ["C", "C++", "#"]),
        ("x > 3", ["x > 3", "x>3", "$x > 3$"], ["x < 3", "x >= 3", "x = 3", "3", "x > 4", "y > 3", "x"]),
        ("a + b", ["a + b", "a+b"], ["a - b", "ab", "a", "a * b", "a / b"]),
        (">", [">"], ["<", "=", ">=", "greater"]),
        ("-", ["-", "−"], ["+", "*", "/", ""]),
        ("!=", ["!=", "≠"], ["==", "=", "!"]),
        ("&&", ["&&"], ["||", "&", "and"]),
        ("f(x)", ["f(x)"], ["f", "x", "f(y)", "g(x)"]),
        ("$x$", ["x", "$x$"], ["y", "xx"]),
        ("#1", ["#1"], ["#2"]),
        ("R&B", ["R&B", "r&b"], ["R", "B", "RB"]),
        ("A+", ["A+"], ["A", "A-", "B+"]),
        ("5!", ["5!"], ["5", "6!", "!5"]),
    ],
    "choices": [
        ("A", ["A", "a", "(A)", "A.", "A)", "[A]", "option A", "Option A.", "The answer is A.", "**A**", "\\boxed{A}", "A) Paris", "(A) Paris", "A. Paris", "Answer: A", "A, because it is the capital", "A: Paris", "The correct answer is (A).", "\\text{A}"], ["B", "(B)", "A dog", "a dog", "A or B", "A and B", "not A", "Paris", "AB", "B) A dog", "An apple", "(A) or (B)", "Both A and B", "A, B", "A/B", "AA"]),
        ("(c)", ["C", "c)", "(c) gravity", "choice C", "The answer is (c).", "C is correct", "It's C."], ["D", "C++", "cat", "(d) c", "neither (c) nor (d)", "(b)"]),
        ("D", ["D", "D."], ["A", "ad", "D or E", "I don't know", "Don"]),
        ("math problem", ["math problem", "(d) math problem", "d) Math problem.", "So the answer is (d) math problem.", "D. math problem", "The answer is (d) math problem"], ["(d)", "(d) coloring book", "math", "problem", "(d) math problem or (e) gravity", "not (d) math problem", "(d) physics problem"]),
        ("(b) bank", ["B", "(b)", "bank", "(b) bank", "the bank", "(B) Bank."], ["(a) bank", "(b) river", "a", "(c)", "river", "not bank"]),
        ("B) 42", ["B", "42", "(B) 42", "B. 42"], ["A", "41", "A) 42", "B) 41", "(A)"]),
    ],
    "yes and no": [
        ("yes", ["yes", "Yes.", "Yes, it is.", "YES", "true", "Yes, because it floats.", "yes!", "**Yes**", "Yes, they do.", "The answer is yes."], ["no", "yes and no", "yesterday", "not yes", "maybe", "Yes, but not always", "yes or no", "No, yes", "Yes. No.", "eyes", "false", "not true"]),
        ("no", ["no", "No.", "No, it is not.", "false", "No, because it sinks."], ["yes", "no one", "not no", "nothing", "know", "No. 5", "no and yes", "none"]),
        (True, ["True", "yes", "true"], ["False", "no", "1", "untrue"]),
        (False, ["False", "no"], ["True", "yes", "0"]),
    ],
}

TEXTS: dict[str, list[Entry]] = {
    "words": [
        ("Tuesday", ["Tuesday", "tuesday.", "Tuesday!", "\"Tuesday\"", "It's Tuesday", "It is Tuesday.", "**Tuesday**", "The answer is Tuesday.", "Tuesday, because it follows Monday", "tuesday (the day after Monday)", "Tuesday. It follows Monday."], ["Wednesday", "not Tuesday", "Tuesday or Wednesday", "Tuesdays are nice and so are Mondays", "Tues", "Tuesday night", "Tuesday and Wednesday", "the day before Tuesday", "never Tuesday"]),
        ("Paris", ["Paris", "paris", "PARIS", "The capital of France is Paris.", "Paris.", "I think it is Paris.", "Paris is correct.", "Paris, not London", "Paris rather than Lyon", "“Paris”", "It is not London but Paris."], ["Paris or London", "London", "not Paris", "It isn't Paris", "maybe Paris", "Paris?", "Pari", "Paris Hilton", "either Paris or Rome", "Rome, not Paris", "A common mistake is Paris", "Paris, London", "Paris\nLondon", "The wrong answer is Paris", "neither Paris nor Rome", "Perhaps Paris", "anything but Paris", "Paris. No, London."]),
        ("New York", ["New York", "new york", "New York.", "new-york"], ["York", "New", "New York City", "New Jersey", "York New"]),
        ("the gate", ["gate", "The gate", "a gate"], ["gatehouse", "the gates", "floodgate"]),
        ("north-west", ["north west", "North-West", "northwest" ][:2], ["north", "west", "north-east", "west north"]),
        ("don't", ["don't", "don’t"], ["do", "dont t", "do not know"]),
        ("São Paulo", ["São Paulo", "são paulo", "Sa\u0303o Paulo"], ["Sao Paulo", "Paulo", "São Pedro"]),
        ("東京", ["東京", "東京。", "「東京」"[1:3]], ["京都", "東", "東京都庁"]),
        ("Москва", ["Москва", "москва."], ["Минск", "Москва и Минск"]),
        ("vitamin A", ["vitamin A", "Vitamin A."], ["vitamin", "vitamin B", "A"]),
        ("winning or losing", ["winning or losing", "(c) winning or losing", "Winning or losing."], ["winning", "losing", "winning and losing"]),
        ("not guilty", ["not guilty", "Not guilty."], ["guilty", "innocent", "not not guilty"]),
        ("cannot be determined", ["cannot be determined", "Cannot be determined."], ["can be determined", "5", "determined"]),
        ("if", ["if", "If"], ["else", "iff"]),
        ("O'Neil", ["O'Neil", "O’Neil"], ["Neil", "O Neal"]),
        ("snake_case", ["snake_case"], ["snake", "case", "snake-case-2"]),
        ("café", ["café", "Café", "cafe\u0301"], ["cafe", "caf"]),
    ],
    "doubt and denial of numbers": [
        ("42", ["42", "I think it is 42.", "It is not 41 but 42.", "42, not 41", "The answer is 42, not 41."], ["not 42", "maybe 42", "perhaps 42", "42?", "42 or 43", "either 42 or 43", "It isn't 42.", "probably 42", "I don't know, 42?", "I'm not sure, 42", "never 42", "41, not 42", "possibly 42", "It could be 42", "The answer is not 42.", "neither 41 nor 42", "anything but 42"]),
        ("0.5", ["0.5 or 1/2", "1/2 (or 0.5)"], ["0.5 or 0.6", "1/2 or 1/3"]),
    ],
    "several numbers": [
        ("12", ["3 boxes of 4, so 12", "3 * 4 = 12", "12 (3 rows of 4)", "12, since 3 * 4 = 12", "12 eggs for 4 people", "So there are 12.", "She has 12 eggs in 3 boxes.", "Total: 12", "5 + 7 = 12 apples", "12 = 3 * 4", "x = 12", "x=12.", "3 times 4 is 12", "The total is 12."], ["12 and 13", "3 and 12", "12 out of 20", "12 of 20", "12 hours 30 minutes", "12 = 13", "3 * 4 = 13", "12 + 1 = 13", "12x", "12 feet 3 inches", "step 12", "question 12", "Chapter 12", "12/13", "12^2", "1 2", "room 12", "2x = 12", "12:30", "x^2 = 12"]),
        ("7", ["7 (that is 9 - 2)", "7, see step 3", "7. Check: 7 + 2 = 9", "7 because 9 - 2 = 7", "It is 7. Checking: 7 * 2 = 14"], ["9 (that is 7 + 2)", "5. Check: 5 + 2 = 7", "14 because 7 * 2 = 14", "9 - 7", "7 8", "the 7 dwarfs and 1 princess"]),
        ("10", ["10 per day", "10 in 3 days", "10 each"], ["3 in 10", "1 in 10", "9 out of 10", "10 in 100" ]),
    ],
    "where the answer stands": [
        ("18", ["#### 18", "He has 9 * 2 = <<9*2=18>>18 eggs.\n#### 18", "Reasoning.\nAnswer: 18", "**Answer**: 18", "**Answer:** 18", "**Final Answer**: $18$", "The answer is 18.", "The final answer is: 18", "the answer is $\\boxed{18}$.", "\\boxed{18}", "$$\\boxed{18}$$", "\\boxed{\\text{18}}", "\\fbox{18}", "A: 18", "First 4.\nA: 18", "<think>It is 17.</think>18", "<think>\\boxed{17}</think>\nThe answer is 18.", "17 is near.\nSo she has 18 eggs.", "Answer:\n18", "ANSWER: 18", "answer = 18", "<answer>18</answer>", "\\boxed{17}. No wait, that is wrong: \\boxed{18}", "We add 9 and 9.\n\nTherefore, the answer is 18.", "## Final answer\n\n18", "The correct answer is 18 eggs.", "Final answer:\n\n$$18$$", "18 is the answer.", "Answer: **18**", "Answer: 9 + 9 = 18", "The answer to the question is 18."], ["#### 81", "18 apples.\n#### 17", "Answer: 17\n", "<think>18</think>17", "<think>The answer is 18", "\\boxed{18", "\\boxed{17} and 18 eggs", "The answer is 17, not 18.", "A: 8", "\\boxed{18} or \\boxed{19}", "Answer: 18 or 19", "The answer is not 18", "Answer: 18\nWait, it is 19.", "Is the answer 18?", "Answer:", "#### ", "\\boxed{}", "17\n18", "18\n19", "<think>18</think>", "I have no answer", "\\boxed{18}\\sqrt{2}", "\\boxed{18}^2", "The wrong answer is 18"]),
        ("Rome", ["Answer: Rome", "The answer is Rome.", "\\boxed{\\text{Rome}}", "So the answer is Rome.", "#### Rome", "It was long ago.\nThe capital is Rome.", "Rome\n\nIt is the capital of Italy.", "<think>Paris?</think>Rome"], ["Answer: Paris", "Rome was considered.\nAnswer: Paris", "\\boxed{\\text{Rome or Paris}}", "<think>Rome</think>Paris", "<think>Rome"]),
    ],
    "references that are solutions": [
        ("She has 4 + 5 = <<4+5=9>>9 eggs.\n#### 9", ["9", "nine", "9 eggs", "#### 9"], ["4", "5", "45", "She has 4 eggs"]),
        ("We get $x=11$, so the answer is $\\boxed{11}$.", ["11", "x = 11", "\\boxed{11}"], ["1", "12", "x"]),
        ("The answer is 9.", ["9", "9.0"], ["8", "answer"]),
        ("**Answer:** 3/4", ["0.75", "3/4"], ["3", "4"]),
        ("4 * 6 = 24", ["24", "24 eggs"], ["4", "6", "46"]),
        ("<think>maybe 5</think>The answer is 6.", ["6"], ["5", "56"]),
        ("He sold 3.\nHe kept 4.\nSo he had 7 books.", ["7", "7 books"], ["3", "4", "34"]),
        ("Answer: Berlin", ["Berlin", "berlin."], ["Answer", "Bern"]),
        ("A: 1,200", ["1200", "$1,200"], ["1", "200", "A"]),
        ("\\boxed{\\frac{2}{5}}", ["2/5", "0.4", "\\frac25", "40%"], ["2", "5", "5/2", "25"]),
    ],
    "no reference and no answer": [
        ("5", ["5"], [None, "", "   ", "\n", float("nan"), "nan"]),
        (None, [], ["", "None", None, "nan", "5"]),
        (float("nan"), [], ["nan", "NaN", "", float("nan")]),
        ("", [], ["", " ", "5"]),
        ("None", ["None", "none"], ["", None, "0", "null"]),
        (["42", "forty-three"], ["42", "43", "forty-two"], ["44", "['42', 'forty-three']", "42, 43"]),
        (["Paris", None, ""], ["Paris"], ["", "None", "London"]),
        ([], [], ["", "[]", "5"]),
        (42, ["42", "42.0", 42], ["43", True]),
        (2.5, ["2.5", "5/2", 2.5], ["2", "5"]),
        (1e16, ["10000000000000000"], ["1"]),
    ],
}

MATHEMATICS: dict[str, list[Entry]] = {
    "expressions": [
        ("\\frac{1}{\\sqrt{3}}", ["\\frac{\\sqrt{3}}{3}", "1/sqrt(3)", "√3/3"], ["\\sqrt{3}", "3", "1/3", "\\frac{1}{3}"]),
        ("(x-1)(x+1)", ["x^2-1", "x² - 1", "-1+x^2"], ["x^2+1", "x-1", "(x-1)(x-1)", "1"]),
        ("5\\sqrt{2}", ["\\sqrt{50}", "5\\sqrt2"], ["5", "2", "2\\sqrt{5}", "52", "50"]),
        ("6", ["\\sqrt{36}", "2\\cdot 3", "\\frac{12}{2}"], ["\\sqrt{6}", "6\\pi", "6x", "6^2", "6\\sqrt{2}", "2π"]),
        ("2\\pi", ["2π", "2 \\cdot \\pi", "\\pi + \\pi"], ["2", "\\pi", "6.28", "\\pi^2"]),
        ("x \\le 4", ["x <= 4", "4 \\ge x"], ["x < 4", "x \\ge 4", "4", "x = 4"]),
        ("(-\\infty, 2]", ["(-∞, 2]"], ["(-\\infty, 2)", "[2, \\infty)", "2"]),
        ("3 - 2i", ["-2i + 3"], ["3 + 2i", "3", "2i - 3", "1"]),
        ("\\begin{pmatrix} 1 & 0 \\\\ 0 & 2 \\end{pmatrix}", ["\\begin{pmatrix}1&0\\\\0&2\\end{pmatrix}"], ["\\begin{pmatrix}1&0\\\\2&0\\end{pmatrix}", "2"]),
        ("y = 3x - 2", ["y = -2 + 3x"], ["y = 3x + 2", "y = 2x - 3", "-2"]),
    ],
}

KINDS = NUMBERS | STRUCTURES | TEXTS
